"""The commands, one file each, and what they share: how the command line is read and how errors
become one line, options, and what Ctrl-C does."""
