"""Charts, as pure functions: rows of a run in, a plotly figure out."""
