"""Horizontal learning: clients hold samples of their own and train one model."""
