"""Several models beside one another: what each is, which is the best, and what changed."""
