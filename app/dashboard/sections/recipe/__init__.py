"""The recipe page: what a recipe is predicted to cost, unit by unit, and what is made of it."""
