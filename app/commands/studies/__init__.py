"""Commands that ask a finished run a question, a file each."""
