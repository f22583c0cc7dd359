"""Engines, one a file: `NAME(settings, on_round) -> None` runs a federation and leaves its records in the output."""
