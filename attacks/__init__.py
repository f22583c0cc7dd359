"""Attacks as pure algorithms on tensors, by what they touch; never Flower."""
