"""Aggregation rules, one a file: `NAME(updates (n, d), weights (n,), *, options) -> (d,)`, float32.

Row i of `updates` is w_client - w_global of client i; `weights` sum to 1 and are what the clients claim (shares of the
samples), so robust rules ignore them and say so. Inputs are never modified. A rule tells `defenses.reporting` what
it did.
"""
