"""Aggregation rules, one a file: `NAME(updates (n, d), weights (n,), *, options) -> (d,)`.

Updates are float32, or float64 for models of float64, and the result is of their precision. Row i is w_client -
w_global of client i, parameters alone; `weights` sum to 1 and are what the clients claim (shares of the samples), so
robust rules ignore them and say so. Inputs are never modified. What a rule did it tells `defenses.reporting`.
"""
