"""A client that plants a backdoor: its data carry the trigger, its training is the ordinary one.

Paper: Bagdasaryan, Veit, Hua, Estrin, Shmatikov, "How To Backdoor Federated Learning", AISTATS 2020, Section 4.
"""

from __future__ import annotations

from thornbed.attacks.data import DataAttack
from thornbed.clients.poisoning import DataPoisoning


class Backdoor(DataPoisoning):
    """Trains on what a backdoor attack of `attacks.data` makes of its data; with `scaling`, model replacement."""

    name = "backdoor"

    def __init__(self, attack: DataAttack) -> None:
        if not attack.backdoor:
            raise ValueError(f"{type(attack).__name__} plants no backdoor; its role is DataPoisoning")
        super().__init__(attack)
