"""What is said of runs, models and recipes: the same in the terminal, on pages and in reports."""
