"""Studies on the pages of runs and blocks."""
