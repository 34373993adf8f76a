"""Which block breaks a prompt, and what repairs it."""
