"""The server's network: the embeddings of all parties side by side, two linear layers, the logits.

Paper: Lee et al., 2025, Section VI-A, a two-layer fully connected network; its hidden units are not given.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn


def two_layers(num_parties: int, embedding_size: int, num_classes: int, *, hidden: int = 128) -> nn.Module:
    """Return the network from embeddings (n, K, d) to logits (n, num_classes); an absent party's embedding is 0.

    Raises ValueError for sizes below 1.
    """
    sizes = {"num_parties": num_parties, "embedding_size": embedding_size, "hidden": hidden, "num_classes": num_classes}
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"a top model needs {name} >= 1: {name} = {size}")
    return nn.Sequential(
        OrderedDict(
            flatten=nn.Flatten(),
            relu1=nn.ReLU(),
            linear=nn.Linear(num_parties * embedding_size, hidden),
            relu2=nn.ReLU(),
            logits=nn.Linear(hidden, num_classes),
        )
    )
