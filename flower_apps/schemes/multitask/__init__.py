"""Federated multitask learning: every client has a linear model of its own."""
