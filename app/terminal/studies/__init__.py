"""Studies as they are printed."""
