"""Checkpoints that other tools made, read like any model."""
