"""Checkpoints: written from a recipe, read back, checked against the rules of servers; and
checkpoints that other tools made, opened and decoded."""
