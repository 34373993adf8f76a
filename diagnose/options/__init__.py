"""Options of a run or a comparison: each once, with all that is said of it. Imports no torch."""
