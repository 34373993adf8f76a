"""Checkpoints: written from a recipe, read back, held against servers, and those of others."""
