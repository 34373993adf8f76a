"""What the pages show of the release gate: the answer, every limit, a policy to try."""
