"""The dashboard: addresses to pages, and commands that are started from them."""
