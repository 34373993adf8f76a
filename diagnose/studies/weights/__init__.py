"""What is stored of a block's weights, beside their 16 bits: codes, scales, clips, worst groups."""
