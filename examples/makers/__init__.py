"""Scripts that make checkpoints by other tools, and what `awqscope compare` makes of each."""
