"""Charts of several models side by side, and of one over its releases."""
