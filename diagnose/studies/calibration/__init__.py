"""How far AWQ's choices depend on the calibration windows, and which windows would be better."""
