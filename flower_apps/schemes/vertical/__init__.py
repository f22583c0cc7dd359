"""Vertical learning: clients hold features of the same samples, the server the labels."""
