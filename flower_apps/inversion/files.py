"""What inversions leave in a folder: inversions.json, the images as safetensors, and two pictures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from thornbed.flower_apps.inversion.inverting import Inversions, Inverted
from thornbed.flower_apps.inversion.pictures import write_inversion_pictures
from thornbed.flower_apps.inversion.records import GRID, INVERSIONS, STEPS, TENSORS, read_inversions
from thornbed.protocol.tensor_files import save_tensors
from thornbed.protocol.whole_files import write_text
from thornbed.tasks.metrics.images import lpips_missing


def write_inversions(folder: Path, inversions: Inversions) -> dict[str, Any]:
    """Write everything, each file whole or not at all; return what inversions.json says.

    Inversions in the folder that are not made again here, since nobody kept the updates, are moved to a folder below,
    and a warning says so.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if (aside := _set_aside(folder, inversions)) is not None:
        said = (
            f"what earlier rounds gave away is in {aside.name} and is not counted here: --record would have kept their "
            "updates"
        )
        inversions = replace(inversions, warnings=[*inversions.warnings, said])
    content = {
        "curious": inversions.spec,
        "observed": _observed(inversions),
        "metrics": inversions.metrics(),
        "seconds": inversions.seconds,
        "peak_memory_mib": inversions.peak_memory_mib,
        "warnings": list(inversions.warnings),
        "beware": inversions.beware(),
        "lpips_missing": lpips_missing(),
        "inversions": [_told(result) for result in inversions.results],
    }
    tensors: dict[str, Tensor] = {}
    for number, result in enumerate(inversions.results):
        found = result.reconstruction
        tensors[f"{number}/images"] = result.images
        tensors[f"{number}/snapshots"] = found.snapshots[:, result.order]
        tensors[f"{number}/snapshot_steps"] = torch.tensor(found.snapshot_steps, dtype=torch.int64)
        if result.originals is not None:
            tensors[f"{number}/originals"] = result.originals[0]
    save_tensors(folder / TENSORS, tensors)
    write_text(folder / INVERSIONS, json.dumps(content, indent=2, allow_nan=False) + "\n")
    write_inversion_pictures(folder)
    return content


def beware_of(folder: Path) -> list[str]:
    """Return what a reader of the inversions in a folder has to know, a sentence each; nothing where there are none."""
    try:
        return [str(sentence) for sentence in json.loads((folder / INVERSIONS).read_text(encoding="utf-8"))["beware"]]
    except (OSError, ValueError, LookupError, TypeError):
        return []


def metrics_of(folder: Path, spec: str) -> dict[str, float | None] | None:
    """Return the metrics of the inversions by `spec` in a folder; None where it has none by that."""
    try:
        content = json.loads((folder / INVERSIONS).read_text(encoding="utf-8"))
        if content["curious"] != spec:
            return None
        return {str(name): None if value is None else float(value) for name, value in content["metrics"].items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def _set_aside(folder: Path, inversions: Inversions) -> Path | None:
    """Move away inversions of updates that are not among these; return where they are, None where there are none."""
    try:
        earlier = [(each.round, each.client) for each in read_inversions(folder).inversions]
    except (OSError, ValueError):
        return None
    made = {(facts.round, facts.client) for facts in (result.recording.facts for result in inversions.results)}
    if made.issuperset(earlier):
        return None
    aside = folder / f"inversions-until-round-{max(number for number, _ in earlier)}"
    aside.mkdir(exist_ok=True)
    for name in (GRID, STEPS, TENSORS, INVERSIONS):  # last what says that they are there
        if (folder / name).exists():
            (folder / name).replace(aside / name)
    return aside


def _observed(inversions: Inversions) -> str:
    """Return which updates were inverted, in a few words."""
    facts = [result.recording.facts for result in inversions.results]
    parts = []
    for name, numbers in (("round", [each.round for each in facts]), ("client", [each.client for each in facts])):
        shown = [str(number) for number in sorted(set(numbers))]
        listed = ", ".join(shown) if len(shown) <= 8 else f"{shown[0]} to {shown[-1]}, {len(shown)} of them"
        parts.append(f"{name}{'s' * (len(shown) > 1)} {listed}")
    return "; ".join(parts)


def _told(result: Inverted) -> dict[str, Any]:
    facts, found = result.recording.facts, result.reconstruction
    losses = found.losses[found.losses.isfinite()]
    return {
        "recording": result.path.name,
        "round": facts.round,
        "client": facts.client,
        "num_samples": facts.num_samples,
        "local_steps": facts.local_steps,
        "learning_rate": facts.learning_rate,
        "labels": found.labels[result.order].tolist(),
        "true_labels": None if result.originals is None else result.originals[1].tolist(),
        "unscored": None if result.originals is not None else "what the client trained on is not known here",
        **result.scores(),
        "loss": float(losses.min()) if len(losses) else None,
        "best_step": found.best_step,
        "steps": len(found.losses) - 1,
        "seconds_per_step": found.seconds_per_step,
        "together": found.together,
        "failure": found.failure,
    }
