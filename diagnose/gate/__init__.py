"""Whether a run may be released: evidence with intervals, a policy, a verdict."""
