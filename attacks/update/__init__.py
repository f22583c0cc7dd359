"""Attacks on the update, one a file: `NAME(peers (k, d), generator, *, options) -> (d,)`.

`peers[0]` is the attacker's own honest update, w_client - w_global, float32; further rows are what its accomplices share.
Inputs are never modified; randomness comes from the generator alone.
"""
