"""Recipes carried out by the tools that they are emitted for, in one command."""
