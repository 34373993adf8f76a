"""The report: a finished run as one page that needs nothing else, to send to someone."""
