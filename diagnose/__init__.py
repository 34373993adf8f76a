"""Measure: corpora, token NLL and KL, the sweep, the estimator, spikes, the run directory.

For scripts: `read_scores(RUN)` gives what `mixedprec.solve` takes. It imports no torch.
"""

from diagnose.scores import read_scores

__all__ = ["read_scores"]
