"""Measure: corpora, token NLL and KL, the sweep, the estimator, spikes, the run directory."""
