"""A finished run opened again, to measure other recipes with its searches and texts."""
