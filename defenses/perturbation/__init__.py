"""Defenses on the client: `NAME(update (d,), generator, *, options) -> (d,)`, float32.

An honest client applies them to its update of the parameters before it sends it. Running statistics of batch norm are
sent as they are: no defense here hides what they tell. Inputs are never modified; randomness comes from the generator
alone.
"""
