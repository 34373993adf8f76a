"""AWQ: the arithmetic, the search for scales and clipping, and the weights that they give."""
