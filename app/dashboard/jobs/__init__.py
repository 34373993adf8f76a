"""Commands started from the dashboard: what was asked, its check, its process, how it stands."""
