"""What flows inside the blocks while they are swept, and what rounding does to their weights."""
