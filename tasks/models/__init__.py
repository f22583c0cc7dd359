"""Networks, one a file: `NAME(sample_shape, num_classes, *, options) -> nn.Module` returns logits (n, num_classes).

Initial weights come from torch's current generator; the caller forks and seeds it (see flower_apps/build.py).
"""
