"""Tasks of lm-eval on a run's models, paired by sample."""
