"""The server's network: the embeddings of all parties side by side, two linear layers, the logits.

Paper: Lee et al., 2025, Section VI-A, a two-layer fully connected network; its hidden units and activations are not
given. Parties' networks end in a linear layer; the ReLU that follows it belongs to the server.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn


def two_layers(
    num_parties: int, embedding_size: int, num_classes: int, *, hidden: int = 128, rectified: bool = True
) -> nn.Module:
    """Return the network from embeddings (n, K, d) to logits (n, num_classes); an absent party's embedding is 0.

    rectified: whether what is below 0 in an embedding is 0 to it, and gets a gradient of 0 back. Raises ValueError for
    sizes below 1.
    """
    sizes = {"num_parties": num_parties, "embedding_size": embedding_size, "hidden": hidden, "num_classes": num_classes}
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"a top model needs {name} >= 1: {name} = {size}")
    return nn.Sequential(
        OrderedDict(
            flatten=nn.Flatten(),
            activation=nn.ReLU() if rectified else nn.Identity(),
            linear=nn.Linear(num_parties * embedding_size, hidden),
            relu=nn.ReLU(),
            logits=nn.Linear(hidden, num_classes),
        )
    )
