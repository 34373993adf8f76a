"""The run directory: what a run or a comparison was asked, its record, its tables and scores, and
the command that resumes it. Imports no torch."""
