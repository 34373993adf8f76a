"""Recipes: a width for every unit, chosen from scores, and written for other tools."""
