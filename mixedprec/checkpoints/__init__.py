"""Checkpoints: written from a recipe, read back, checked against the rules of servers."""
