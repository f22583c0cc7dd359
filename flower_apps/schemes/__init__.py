"""Schemes of learning, one a folder: what a run is made of, as its strategy has it."""
