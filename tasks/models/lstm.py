"""Long short-term memory layers over a sequence of vectors, and a linear layer on the state after its last real one.

Paper: S. Hochreiter and J. Schmidhuber, "Long Short-Term Memory", Neural Computation, 1997, with the forget gates of
F. A. Gers, J. Schmidhuber and F. Cummins, "Learning to Forget", Neural Computation, 2000. Two layers of 200 units are
those of X. Wang et al., "Invariant Aggregator for Defending against Federated Backdoor Attacks", AISTATS 2024,
Appendix C.2, which leaves open what the prediction is made from. Layers are torch's, with its two biases a gate.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from thornbed.tasks.models import check_width, sequence_shape


def lstm(
    sample_shape: tuple[int, ...],
    num_classes: int,
    *,
    num_layers: int = 2,
    hidden: int = 200,
    dropout: float = 0.0,
) -> nn.Module:
    """Return the network for sequences (length, features); vectors that are all zero after the last other are padding.

    `dropout` is the share of units silenced between layers in training. A sequence of zeros alone is read as one of
    length 1. Raises ValueError for samples that are no sequences and for options out of range.
    """
    _, features = sequence_shape("lstm", sample_shape)
    check_width("lstm", "num_layers", num_layers)
    check_width("lstm", "hidden", hidden)
    if not 0 <= dropout < 1:
        raise ValueError(f"lstm needs 0 <= dropout < 1: dropout = {dropout}")
    if dropout and num_layers == 1:
        raise ValueError(f"lstm needs num_layers >= 2 with dropout: num_layers = 1, dropout = {dropout}")
    return _LastState(nn.LSTM(features, hidden, num_layers, batch_first=True, dropout=dropout), num_classes)


class _LastState(nn.Module):
    """Logits of the last layer's state at the last position that is no padding."""

    def __init__(self, layers: nn.LSTM, num_classes: int) -> None:
        super().__init__()
        self.lstm = layers
        self.logits = nn.Linear(layers.hidden_size, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.lstm(x)  # (n, L, D) -> (n, L, hidden); a state never depends on what comes later
        positions = torch.arange(x.shape[1], device=x.device)
        last = ((x != 0).any(dim=2) * positions).amax(dim=1)  # (n,)
        logits: Tensor = self.logits(states[torch.arange(len(x), device=x.device), last])
        return logits
