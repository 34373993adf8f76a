"""Commands started from the dashboard: what a form asks for, the checks of it, the processes that
carry it out, and how far they are."""
