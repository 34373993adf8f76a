"""Passes over the windows of a text, chunk by chunk: what a stage is carried out with."""
