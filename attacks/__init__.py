"""Attacks as pure algorithms on tensors, by what they touch; never Flower.

Every attack says in a constant `NEEDS` what its attacker must know, as a frozenset of `Knowledge`: a run prints it, and
refuses an attack that needs what the setting cannot give.
"""

from __future__ import annotations

from enum import StrEnum


class Knowledge(StrEnum):
    """What an attacker may have to know."""

    OWN_DATA = "its own data"
    SERVER_MODEL = "the server's model"
    EARLIER_MODELS = "the server's models of earlier rounds"
    OTHER_ATTACKERS = "what other attackers hold"
    DEFENSE = "the defense"
    TARGET_DATA = "data like the target's"
    HONEST_UPDATES = "what honest clients send"
    NODES_DATA = "every node's data"
    RELATIONS = "how the nodes are related"
    FUSION_MODEL = "the fusion centre's model"
    OTHER_EMBEDDINGS = "what other agents send for the same query"
    TRUE_LABELS = "the true labels of the queries"
    OWN_GRADIENTS = "the gradients of its own embeddings"
    FEW_LABELS = "the labels of a few training samples"
