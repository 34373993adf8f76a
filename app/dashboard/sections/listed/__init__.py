"""The list of runs: its lines."""
