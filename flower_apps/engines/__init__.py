"""Engines, one a file: `NAME(settings, on_round) -> summary` runs a federation and leaves its records in the output."""
