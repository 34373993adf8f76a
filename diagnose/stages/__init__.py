"""The measuring stages of a run, from the AWQ search to the units worth promoting. Each reads and
writes the run directory; what it decides is decided by pure functions elsewhere."""
