"""The proof: the checkpoint as a user would load it, against what was promised."""
