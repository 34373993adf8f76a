"""The pages of the dashboard: each a function of what a run holds and what the address says."""
