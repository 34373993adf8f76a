"""Measure: what quantization costs, block by block, and what repairs it. Imports nothing of app."""
