"""What `thornbed certify` does: how many lying clients the manifold of a finished run tolerates, whoever is silent.

Paper: Liu, Xie, Koyejo, Li, "CoPur", NeurIPS 2022, Theorems 2 and 4; `defenses.leverage` computes what they ask for.
A set of clients takes seconds, so it is done for a finished run and not in every one.
"""

from __future__ import annotations

import inspect
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from thornbed.defenses.autoencoder import Autoencoder
from thornbed.defenses.inference import ABSTAINS
from thornbed.defenses.leverage import Certificate, certify
from thornbed.defenses.purification.copur import copur
from thornbed.flower_apps.records.folder import CONFIG, MODEL, OF_RUN, Folder, prove, settings_digest
from thornbed.flower_apps.resolving import resolve
from thornbed.flower_apps.schemes.inference.run import InferenceRun
from thornbed.flower_apps.schemes.inference.server import ANSWERS, read_answers, write_answers
from thornbed.flower_apps.schemes.scheme import built
from thornbed.flower_apps.settings import BadSettings
from thornbed.flower_apps.settings.plugins import Spec
from thornbed.protocol.randomness import generator
from thornbed.protocol.threads import one_thread
from thornbed.protocol.whole_files import write_text
from thornbed.strategies.collaborative_inference import ATTACKED, CLEAN

CERTIFICATE = "certificate.json"
PREFIX = "autoencoder."
MOST_SETS = 16  # of clients that queries had nothing from, since liars can make as many as there are queries
ROUNDS = {CLEAN: "before the attack", ATTACKED: "under the attack"}


def run(path: Path, silent: str | None, out: Console, err: Console) -> None:
    """Certify the manifold of the run in a folder, print what it tolerates, and write certificate.json there.

    silent : clients that send nothing, as "6,9"; by default nobody, each client alone, and those of whom queries of
        the run had nothing, of which the MOST_SETS most frequent sets count. Then answers.npz is told, too, what is
        certified of each query (`certified_answers`).
    """
    folder = Folder(path.expanduser())
    settings = resolve(folder.settings())
    made = built(settings)
    if not isinstance(made, InferenceRun):
        raise BadSettings(
            f"{path} holds a run of --strategy {settings.strategy}, and certify is for collaborative_inference"
        )
    autoencoder, deltas = _autoencoder(folder, made), _deltas(folder)
    agents = len(autoencoder.mean)
    answers = _answers(folder) if silent is None else {}
    asked = silent_sets(answers)
    often = [missing for missing, _ in asked.most_common(MOST_SETS) if len(missing) < agents]
    found: list[dict[str, Any]] = []
    with err.status("Certifying"), one_thread():
        for missing in dict.fromkeys([*_sets(silent, agents), *often]):
            observed = torch.ones(agents, dtype=torch.bool)
            observed[list(missing)] = False
            weight = autoencoder.last_layer()[0]
            certificate = certify(weight, observed, generator(settings.seed, "certificate", *missing))
            # The bound is of minima on the manifold, which a decoder that is not affine need not have.
            told = _told(certificate, deltas if autoencoder.is_affine else {})
            found.append({"silent": list(missing), "queries": asked[missing], **told})
    out.print(_table(found))
    lacks = lacks_guarantee(made.defenses, affine=autoencoder.is_affine)
    needed = ("gap", "clipped")
    if lacks is None and any(
        f"moved_{name}" in answers and f"{each}_{name}" not in answers for name in ROUNDS for each in needed
    ):
        lacks = f"{ANSWERS} does not say how near their minimum its answers are, as runs of this version do"
    affine = "affine, so its manifold is the subspace that these numbers are about"
    bounds = (
        "not affine: what is tolerated is tolerated where the descent finds the minimum, which nobody promises, and "
        "liars that are said to win may not find a way"
    )
    said = f"The decoder is {affine if autoencoder.is_affine else bounds}."
    out.print(said, markup=False, highlight=False, soft_wrap=True)
    if deltas and autoencoder.is_affine:
        out.print(
            "Radius: with as many liars as are tolerated, how far the purified features can be from what the true "
            "embeddings would be on the manifold, for rows that are no farther than delta from it, which 95% of the "
            f"training rows are: {deltas['delta_95']:.3g}. An embedding's own size is {_size(autoencoder):.3g}.",
            soft_wrap=True,
        )
    if lacks is not None:
        said = f"Beware: {lacks}; this run has --defense {settings.defense}, and its answers are not certified."
        out.print(said, markup=False, highlight=False, soft_wrap=True)
    elif answers:
        certified = certified_answers(answers, found)
        write_answers(folder.path, {**answers, **certified})
        for sentence in _sentences(certified):
            out.print(sentence, markup=False, highlight=False, soft_wrap=True)
    told = {"affine": autoencoder.is_affine, "guaranteed": lacks is None, "deltas": deltas, "sets": found}
    write_text(folder.path / CERTIFICATE, json.dumps(told, indent=2) + "\n")
    out.print(f"Numbers: {folder.path / CERTIFICATE}", markup=False, highlight=False, soft_wrap=True)


def lacks_guarantee(defenses: Sequence[Spec], *, affine: bool) -> str | None:
    """Say what a run with these defenses lacks for the theorems to be of its answers, or None.

    They are of the minimum on the manifold: how near copur came to it is known with the reweighted solver, and stage
    two stays there with a tau for which it gains nothing off the manifold, or where it is left out.
    """
    given = next((spec.options for spec in defenses if spec.name == copur.__name__), None)
    if given is None:
        return "the theorems are of copur"
    options = {name: each.default for name, each in inspect.signature(copur).parameters.items()} | dict(given)
    if not affine or options["solver"] == "gradient":
        return "the theorems are of a minimum, and whether a descent has found it nobody knows"
    if options["tau"] < 1 and options["penalty_steps"]:
        return "the theorems are of copur with tau of 1 and above, or without stage two"
    return None


def silent_sets(answers: Mapping[str, NDArray[Any]]) -> Counter[tuple[int, ...]]:
    """Return of how many queries, clean and attacked ones, nothing usable came from which clients."""
    gone = [row for name in ROUNDS if f"moved_{name}" in answers for row in np.isnan(answers[f"moved_{name}"])]
    return Counter(tuple(np.flatnonzero(row).tolist()) for row in gone)


def certified_answers(
    answers: Mapping[str, NDArray[Any]], sets: Sequence[Mapping[str, Any]]
) -> dict[str, NDArray[Any]]:
    """Return what the certificates of observed sets say of each query (n,), for clean and attacked ones.

    `tolerated_NAME`: how many of the clients whose blocks were used may lie, those whose blocks were clipped taken for
    liars already; -1 where these are too many, where no set of `sets` is the query's, and where its point is not
    determined. `radius_NAME`: how far its features can then be from what the true embeddings would
    be on the manifold, where those are no farther from it than delta_95, the distance by which purification may have
    missed its minimum included; infinite where nothing is known. Where labels are smoothed, `label_certified_NAME`:
    whether the label's own radius is no smaller, so that liars cannot have changed it if the true embeddings are so
    near.
    """
    known = {tuple(each["silent"]): each for each in sets if each["determined"]}
    found: dict[str, NDArray[Any]] = {}
    for name in ROUNDS:
        if f"moved_{name}" not in answers:
            continue
        of_rows = [known.get(tuple(np.flatnonzero(row).tolist())) for row in np.isnan(answers[f"moved_{name}"])]
        gaps = answers[f"gap_{name}"]
        left = [-1 if each is None else each["tolerated"] for each in of_rows] - answers[f"clipped_{name}"]
        found[f"tolerated_{name}"] = np.maximum(left, -1)
        found[f"radius_{name}"] = np.array(
            [
                math.inf
                if each is None or each.get("radius_95") is None or more < 0
                else each["radius_95"] + gap / each["steepness"]
                for each, gap, more in zip(of_rows, gaps, left, strict=True)
            ]
        )
        if (own := answers.get(f"label_radius_{name}")) is not None:
            found[f"label_certified_{name}"] = (answers[name] != ABSTAINS) & (own >= found[f"radius_{name}"])
    return found


def _sentences(certified: Mapping[str, NDArray[Any]]) -> list[str]:
    said = []
    for name, words in ROUNDS.items():
        if (tolerated := certified.get(f"tolerated_{name}")) is None:
            continue
        counts = ", ".join(f"{(tolerated == q).sum()} tolerate {q}" for q in sorted(set(tolerated.tolist()) - {-1}))
        sentence = f"Of {len(tolerated)} queries {words} {counts or 'none is certified'}"
        if (labels := certified.get(f"label_certified_{name}")) is not None:
            sentence += f"; the smoothed label of {labels.sum()} is certified if the true embeddings are within delta"
        said.append(sentence + ".")
    return said


def _answers(folder: Folder) -> dict[str, NDArray[Any]]:
    try:
        answers = read_answers(folder.path)
    except FileNotFoundError:
        return {}  # of a run that is not finished, whose manifold is known
    except ValueError as error:
        raise BadSettings(f"{folder.path / ANSWERS} is damaged ({error})") from None
    if str(answers.get(OF_RUN)) != settings_digest(folder.settings()):
        raise BadSettings(f"{folder.path / ANSWERS} is of a run with other settings than the {CONFIG} beside it")
    return answers


def _autoencoder(folder: Folder, made: InferenceRun) -> Autoencoder:
    path, options = folder.path / MODEL, made.strategy
    try:
        stored = prove(path, folder.settings())
        tensors = {name.removeprefix(PREFIX): tensor for name, tensor in stored.items() if name.startswith(PREFIX)}
        size = options.bottleneck or tensors["decoder.0.weight"].shape[1]  # what a run without one came to
        autoencoder = Autoencoder(tensors["mean"], tensors["scale"], size, generator(0, "blank"), hidden=options.hidden)
        autoencoder.load_state_dict(tensors)
    except FileNotFoundError:
        raise BadSettings(f"{folder.path} has no {MODEL}; certify takes the folder of a finished run") from None
    except BadSettings:
        raise
    except (KeyError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise BadSettings(f"{path} holds no model of this run ({reason})") from None
    return autoencoder


def _size(autoencoder: Autoencoder) -> float:
    """Return the root mean square distance of clean embeddings (M, d) from their mean."""
    return float((autoencoder.scale.square().sum() * autoencoder.mean.shape[1]).sqrt())


def _deltas(folder: Folder) -> dict[str, float]:
    """Return how far training rows were from the manifold, as the round of training has told it."""
    lines = [line.get("defense") or {} for line in folder.lines() if line["round"] == 1]
    return {name: line[name] for line in lines for name in ("delta_median", "delta_95") if name in line}


def _sets(silent: str | None, agents: int) -> Sequence[tuple[int, ...]]:
    if silent is None:
        return [(), *((agent,) for agent in range(agents))]
    words = [word.strip() for word in silent.split(",") if word.strip()]
    if not all(word.isdecimal() and int(word) < agents for word in words):
        raise BadSettings(f"--silent takes numbers of clients, 0 to {agents - 1}, such as 6,9; not {silent!r}")
    missing = tuple(sorted({int(word) for word in words}))
    if len(missing) == agents:
        raise BadSettings("--silent names all clients; somebody has to send something")
    return [missing]


def _told(certificate: Certificate, deltas: dict[str, float]) -> dict[str, Any]:
    told: dict[str, Any] = {
        "tolerated": certificate.tolerated,
        "refuted_at": certificate.refuted_at,
        "determined": certificate.determined,
        "gain": certificate.gain,
        "steepness": certificate.steepness(certificate.tolerated),
        "levels": [
            {
                "liars": level.num_corrupted,
                "low": level.low,
                "high": level.high,
                "exact": level.exact,
                "worst": list(level.worst),
                **{
                    name.replace("delta", "radius"): _radius(certificate, delta, level.num_corrupted)
                    for name, delta in deltas.items()
                },
            }
            for level in certificate.levels
        ],
    }
    for name, delta in deltas.items():
        told[name.replace("delta", "radius")] = _radius(certificate, delta, certificate.tolerated)
    return told


def _radius(certificate: Certificate, delta: float, num_corrupted: int) -> float | None:
    """Return the radius as JSON has it, which has no infinity."""
    radius = certificate.radius(delta, num_corrupted)
    return radius if math.isfinite(radius) else None


def _table(found: Sequence[dict[str, Any]]) -> Table:
    table = Table("silent", title="How many lying clients the manifold tolerates", title_justify="left")
    for name in ("queries", "tolerated", "win from", "c with one liar", "radius"):
        table.add_column(name, justify="right")
    for row in found:
        first = row["levels"][0] if row["levels"] else None
        bounds = "-" if first is None else f"{first['low']:.3f}"
        if first is not None and first["high"] - first["low"] > 5e-4:
            bounds += f" to {first['high']:.3f}"
        radius = row.get("radius_95")
        table.add_row(
            ",".join(map(str, row["silent"])) or "nobody",
            str(row["queries"]),
            str(row["tolerated"]),
            str(row["refuted_at"]) if row["determined"] else "not determined",
            bounds,
            "-" if radius is None else f"{radius:.3g}",
        )
    return table
