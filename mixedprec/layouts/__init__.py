"""How tools store packed weights, and what those stand for: a file for each format."""
