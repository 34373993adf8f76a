"""Show: the command line, charts, reports and the dashboard. Imports diagnose and mixedprec, and is
imported by neither."""
