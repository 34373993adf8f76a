"""Make: quantization arithmetic, the AWQ search, recipes, checkpoints. Imports nothing above it."""
