"""The sweep: models that are quantized in part, measured in one pass over the weights."""
