"""Collaborative inference: clients hold features of the same samples, a fusion centre predicts."""
