"""Strategies that wrap any other strategy and change one thing about it."""
