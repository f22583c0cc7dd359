"""Attacks on training data, one a file: a frozen dataclass whose fields are its options.

`poison(samples, generator) -> Samples` is what a malicious client trains on; `measure(test) -> Samples` is what the
attack is measured on: attacked test samples with the labels the attacker wants, so that accuracy on them is the attack
success rate. `modalities` says what it works on; `backdoor` whether it plants one. Inputs are never modified.
"""
