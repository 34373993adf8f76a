"""The stages of a run in order, from the AWQ search to the proof, and those of a comparison. Each
reads and writes the run directory; what it decides is decided by pure functions elsewhere."""
