"""Runnable examples: the bundled demo model, how it was made, one script a task, benchmarks."""
