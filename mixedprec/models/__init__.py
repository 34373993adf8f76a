"""A 16-bit model on disk: which files hold its weights, and each block read and run by itself."""
