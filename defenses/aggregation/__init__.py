"""Aggregation rules, one a file: `NAME(updates (n, d), weights (n,), *, options) -> (d,)`, float32.

Row i of `updates` is w_client - w_global of client i, parameters alone; `weights` sum to 1 and are what the clients
claim (shares of the samples), so robust rules ignore them and say so. Inputs are never modified. What a rule did it
tells `defenses.reporting`.
"""
