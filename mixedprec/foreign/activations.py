"""Candidates whose servers quantize activations too (W8A8, FP8): what is measured of them."""

WEIGHTS_ALONE = (
    "its activations are quantized too when it is served; measured here with its weights alone"
)
