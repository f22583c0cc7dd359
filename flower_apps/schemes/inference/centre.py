"""The fusion centre of a run, from the specs of its strategy and its defense."""

from __future__ import annotations

import importlib
from functools import partial

import torch

from thornbed.defenses.fusion_head import HeadTraining
from thornbed.defenses.inference import InferenceDefense
from thornbed.defenses.inference.plain import Plain
from thornbed.flower_apps.run import build
from thornbed.flower_apps.settings import NONE, BadSettings, Resolved, plugins
from thornbed.flower_apps.settings.plugins import Spec
from thornbed.strategies._fusion_centre import FusionCentre
from thornbed.strategies.collaborative_inference import CollaborativeInference, Queries

PURIFICATIONS, DECISIONS = "defenses/purification", "defenses/inference"
UNSECURED = Spec("unsecured", {})


def strategy(
    settings: Resolved, centre: FusionCentre | None = None, asked: Queries | None = None
) -> CollaborativeInference:
    """Build the strategy; raises ValueError for options out of range."""
    make = plugins.load("strategy", settings.strategy)
    made: CollaborativeInference = make(build.cohort(settings), settings.min_replies, settings.seed, centre, asked)
    return made


def centre(settings: Resolved, num_rows: int | None = None) -> FusionCentre:
    """Return how embeddings are purified and classified, with the labels of the first `num_rows` training rows.

    Raises BadSettings for several purifications, or several ways to decide.
    """
    task, made = build.load_task(settings.task, settings.data_dir), strategy(settings)
    spec = _only(settings, PURIFICATIONS) or UNSECURED
    decision = _only(settings, DECISIONS)
    defense: InferenceDefense = Plain() if decision is None else plugins.load("defense", decision)
    corrupted = torch.zeros(settings.num_clients, dtype=torch.bool)
    corrupted[list(settings.malicious)] = True
    return FusionCentre(
        labels=task.train.y[:num_rows],
        num_classes=task.num_classes,
        embedding_size=made.embedding_size,
        corrupted=corrupted,
        purify=partial(plugins.load("defense", spec)),
        on_manifold=bool(importlib.import_module(plugins.find("defense", spec.name).__module__).ON_MANIFOLD),
        defense=defense,
        training=HeadTraining(hidden=(made.hidden_units,), epochs=made.head_epochs),
        bottleneck=made.bottleneck,
        hidden=made.hidden,
        drop=made.drop,
        epochs=made.epochs,
    )


def _only(settings: Resolved, folder: str) -> Spec | None:
    folders = plugins.available("defense")
    specs = [] if settings.defense == NONE else plugins.parse_sum(settings.defense)
    found = [spec for spec in specs if folders.get(spec.name) == folder]
    if len(found) > 1:
        words = "purification" if folder == PURIFICATIONS else "way to decide"
        raise BadSettings(f"--defense takes one {words}, not {len(found)}: {' + '.join(map(str, found))}")
    return found[0] if found else None
