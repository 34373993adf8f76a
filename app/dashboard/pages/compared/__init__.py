"""Pages that set models side by side."""
