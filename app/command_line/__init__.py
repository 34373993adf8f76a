"""How the command line reads and speaks: its parser and options, errors in one line, Ctrl-C."""
