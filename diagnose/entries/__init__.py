"""What run.json is made of: each entry that is an object of its own, and what is said of some."""
