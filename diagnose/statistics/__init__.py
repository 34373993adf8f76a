"""Likelihoods of tokens, intervals by bootstrap, and which blocks stand out."""
