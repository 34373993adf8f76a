"""Other ways to quantize the same model, measured on a run's text beside its own."""
