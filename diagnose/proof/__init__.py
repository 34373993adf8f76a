"""The proof: the checkpoint as a user would load it, checked against what the recipe says; and the
checkpoint's model card."""
