"""Questions asked of a finished run, each with an answer that is measured and kept beside it."""
