"""A finished run opened again: other recipes, or mixes of widths, measured with its searches and
texts."""
