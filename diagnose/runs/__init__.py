"""The run directory: what a run was asked, its record and its tables. Imports no torch."""
