"""A plain run of a paper's setting is that of the paper's page: what a preset says is what the task defaults to.

Sizes below `[scale]` are smaller or larger on purpose, and say so; lists are what a preset compares.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from thornbed.flower_apps.resolving import resolve
from thornbed.flower_apps.schemes.inference.run import InferenceRun
from thornbed.flower_apps.settings import Settings, plugins, settings_from

PRESETS = Path(__file__).parents[2] / "experiments" / "presets"
HOW = (
    *("model", "optimizer", "learning_rate", "batch_size", "local_epochs", "partition"),
    *("num_clients", "clients_per_round", "rounds"),
)
# Deliberate differences, each with its reason.
OTHERWISE = {
    "agic": set(HOW),  # a curious server's victim trains as the inversion's paper says, on a few images at 0.0001
    "at2fl": {"rounds"},  # as many as the duality gap takes on each task
    "at2fl/fig8": {"rounds", "local_epochs"},  # likewise, by rounds of one pass
    "mocha": {"rounds"},
    "invariant/cifar10_causes": {"optimizer", "learning_rate", "partition"},  # which of these matters is the question
    "invariant/phishing_causes": {"optimizer"},
    "invariant/fig6": {"clients_per_round"},  # the figure's own
    "vfl_backdoor": {
        "model",
        "num_clients",
    },  # cifar10 has the paper's encoder, its graphs as many parties as they need
    "vfl_backdoor/forgetting": {"model", "optimizer", "learning_rate"},  # which optimiser forgets is the question
}
COMPARED = {"copur/training"}  # how long the head learns is what it compares


def content(preset: Path) -> dict[str, Any]:
    return {name.replace("-", "_"): value for name, value in tomllib.loads(preset.read_text(encoding="utf-8")).items()}


def named(preset: Path) -> str:
    return f"{preset.parent.name}/{preset.stem}"


def first(value: object) -> str:
    return str(value[0] if isinstance(value, list) else value)


def parts(preset: Path) -> list[dict[str, Any]]:
    """Return what a preset says of each of its blocks, without the sizes of its scales."""
    whole = content(preset)
    blocks = whole.get("block", [{}])
    each = [{**whole, **{name.replace("-", "_"): value for name, value in block.items()}} for block in blocks]
    return [{name: value for name, value in said.items() if name in Settings.model_fields} for said in each]


@pytest.mark.parametrize("preset", sorted(PRESETS.glob("*/*.toml")), ids=named)
def test_what_a_preset_says_is_the_default_of_its_task(preset: Path):
    allowed = OTHERWISE.get(named(preset), OTHERWISE.get(preset.parent.name, set()))
    for said in parts(preset):
        asked = {name: first(said[name]) for name in ("task", "strategy", "attack") if first(said.get(name, ""))}
        plain = resolve(settings_from(asked))
        differs = {}
        for name in HOW:
            if name in said and not isinstance(said[name], list):
                value = said[name]
                if name in ("model", "optimizer", "partition"):
                    value = " + ".join(map(str, plugins.parse_sum(value)))
                if value != getattr(plain, name):
                    differs[name] = (value, getattr(plain, name))
        assert set(differs) <= allowed, (asked, differs)


@pytest.mark.parametrize("preset", sorted(PRESETS.glob("copur/*.toml")), ids=named)
def test_a_plain_run_of_collaborative_inference_has_the_head_and_the_manifold_of_the_tables(preset: Path):
    said = content(preset)
    task = first(said["task"])
    for spec in said["strategy"] if isinstance(said["strategy"], list) else [said["strategy"]]:
        options = plugins.parse(spec).options
        run = InferenceRun(resolve(settings_from({"task": task, "strategy": "collaborative_inference"})))
        if "head_epochs" in options and named(preset) not in COMPARED:
            assert options["head_epochs"] == run.head_epochs
        if "bottleneck" not in options:
            assert run.bottleneck == 5


@pytest.mark.parametrize(
    ("task", "strategy", "bottleneck", "head_epochs"),
    [
        ("digits", "collaborative_inference", 18, 30),
        ("digits", "collaborative_inference(bottleneck=3, head_epochs=7)", 3, 7),
        ("digits", "collaborative_inference(embedding_size=1)", 10, 30),  # no more than ten agents send
        ("phishing", "collaborative_inference", 5, 30),
    ],
)
def test_elsewhere_the_manifold_follows_the_classes(task, strategy, bottleneck, head_epochs):
    run = InferenceRun(resolve(settings_from({"task": task, "strategy": strategy})))
    assert (run.bottleneck, run.head_epochs) == (bottleneck, head_epochs)
    assert (run.centre.bottleneck, run.centre.training.epochs) == (bottleneck, head_epochs)
