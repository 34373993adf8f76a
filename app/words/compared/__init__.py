"""What is said of models beside others: of a candidate, of two, of many, of one over time."""
