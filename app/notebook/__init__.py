"""Runs as scripts and notebooks have them; `awqscope` gives its names. Reading imports no torch."""
