"""Defenses on the client: `NAME(update (d,), generator, *, options) -> (d,)`, float32.

An honest client applies them to its update before it sends it. Inputs are never modified; randomness comes from the
generator alone.
"""
