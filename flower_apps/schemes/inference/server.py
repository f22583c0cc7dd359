"""The server's side of collaborative inference: the fusion centre, tested on the queries, whose labels it has."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from thornbed.flower_apps.records.curves import ACCURACY, ATTACK, plain
from thornbed.flower_apps.records.folder import OF_RUN, Folder, settings_digest
from thornbed.flower_apps.records.image_sheet import INK
from thornbed.flower_apps.records.plots import save
from thornbed.flower_apps.run.stored_extractors import trained_on
from thornbed.flower_apps.schemes.inference.run import EXTRACTORS, InferenceRun, states_of
from thornbed.flower_apps.schemes.scheme import known_malicious
from thornbed.protocol.tensor_files import save_tensors
from thornbed.protocol.vector import to_tensors
from thornbed.protocol.whole_files import whole
from thornbed.strategies.collaborative_inference import ATTACKED, CLEAN, EXPLAINED, accuracies
from thornbed.tasks.sources.archive import read_archive

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MODEL, ANSWERS = "model.safetensors", "answers.npz"
# Of what the strategy remembers.
TOLD = frozenset({CLEAN, ATTACKED, "moved", "gap", "clipped", "label_radius", "label_tolerated"})
Arrays = Mapping[str, NDArray[Any]]


class InferenceServer:
    """Learns from clean embeddings, then answers queries; the clients have the features."""

    def __init__(self, run: InferenceRun) -> None:
        self.run, self.settings = run, run.settings
        self.labels = run.labels(run.asked.split, run.asked.queries)
        self.strategy = run.new_strategy(run.centre, run.asked)
        if run.settings.output and not run.goes_on:  # what a run left that ended before it began
            (run.output / EXTRACTORS).unlink(missing_ok=True)
        # In deployment each client has its own extractor, and nobody has them all.
        self.networks = () if run.deployed else run.extractors
        self.trained_on = {} if run.deployed else trained_on(run.settings, len(run.asked.train))

    @property
    def malicious(self) -> frozenset[int]:
        """The clients that attack; in deployment those that are known by now."""
        return known_malicious(self.settings, self.strategy.cohort)

    @property
    def facts(self) -> Mapping[str, Any]:
        """The sizes of the networks, how many columns each client holds, and what is asked."""
        centre = self.run.centre.blank()
        # Of a manifold whose size is still to be chosen nobody knows how many there will be.
        known: nn.Module = centre.head if self.run.strategy.bottleneck is None else centre
        networks: list[nn.Module] = [*self.networks, known]
        sizes = [sum(each.numel() for each in network.parameters()) for network in networks]
        return {
            "device": "cpu",
            "num_parameters": sum(sizes),
            "num_parameters_fusion_centre": sizes[-1],
            "columns": [len(block) for block in self.run.blocks],
            "training_rows": len(self.run.asked.train),
            "queries": len(self.labels),
        }

    def layout(self) -> Mapping[str, Tensor]:
        """Return a fusion centre's model like the run's."""
        if self.run.strategy.bottleneck is not None:
            return self.initial()
        chosen = [line["defense"]["bottleneck"] for line in Folder(self.run.output).lines() if line["round"] == 1]
        return self.run.centre.blank(*chosen).state_dict()

    def initial(self) -> Mapping[str, Tensor]:
        """Return one that has learned nothing."""
        return to_tensors(self.strategy.initial())

    def test(self, tensors: Mapping[str, Tensor]) -> dict[str, float | None]:
        """Return accuracies on the queries, of the rounds that there were, and the share of the most frequent class."""
        memory = self.strategy.memory
        right = accuracies(memory, self.labels)
        found = {"clean_accuracy": right[CLEAN], "robust_accuracy": right[ATTACKED]}
        if not self.run.attacks:
            del found["robust_accuracy"]
        explained = memory.get(EXPLAINED)
        return {
            **found,
            "majority_share": float(self.labels.bincount().max()) / len(self.labels),
            "explained_variance": None if explained is None else float(explained),
        }

    def keep(self, folder: Path, tensors: Mapping[str, Tensor]) -> None:
        """Write model.safetensors (extractors but in deployment, autoencoder, head), answers.npz and the picture.

        answers.npz has labels (n,), the predictions `clean` and `attacked` (n,), how far purification moved each block,
        `moved_clean` and `moved_attacked` (n, M), NaN of one that was not used, how far above its minimum purification
        ended at most, `gap_clean` and `gap_attacked` (n,), NaN where nobody knows, how many blocks were so far away
        that they count as corrupted ones, `clipped_clean` and `clipped_attacked` (n,), and what a defense that
        certifies labels says of each, `label_radius_clean`, `label_tolerated_clean` and so on (n,).
        """
        said = {**self.trained_on, OF_RUN: settings_digest(self.settings)}
        save_tensors(folder / MODEL, {**states_of(self.networks), **tensors}, said)
        told = {
            name.replace("/", "_"): tensor.numpy()
            for name, tensor in self.strategy.memory.items()
            if name.removesuffix(f"/{CLEAN}").removesuffix(f"/{ATTACKED}") in TOLD
        }
        write_answers(folder, {OF_RUN: np.array(said[OF_RUN]), "labels": self.labels.numpy(), **told})
        write_pictures(folder, told, self.malicious)


def write_answers(folder: Path, arrays: Arrays) -> None:
    """Write answers.npz, whole or not at all."""
    with whole(folder / ANSWERS) as part, part.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **arrays)


def read_answers(folder: Path) -> dict[str, NDArray[Any]]:
    """Return what answers.npz holds; raises FileNotFoundError, and ValueError for a file that is none."""
    return read_archive(folder / ANSWERS)


MOVED = "moved.png"


def write_pictures(folder: Path, answers: Mapping[str, NDArray[Any]], malicious: frozenset[int]) -> None:
    """Write moved.png from what `answers` says was moved, before and under the attack, by these clients."""
    from matplotlib import style

    told = {name: answers[f"moved_{name}"] for name in ("clean", "attacked") if f"moved_{name}" in answers}
    # Of a round in which no block could be used there is nothing to draw.
    blocks = {name: each for name, each in told.items() if np.isfinite(each).any()}
    if not any(np.nanmax(each) > 0 for each in blocks.values()):
        return  # nothing purifies
    with style.context("default"):
        save(moved(blocks, malicious), folder / MOVED, dpi=150)


def moved(blocks: Mapping[str, NDArray[np.float64]], malicious: frozenset[int]) -> Figure:
    """Draw for each client the median of how far its blocks (n, M) were moved, with the middle 90% of them."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 3.6), facecolor="white")
    axes = figure.subplots()
    looks = {"clean": (-0.14, ACCURACY, "before the attack"), "attacked": (0.14, ATTACK, "under the attack")}
    for name, each in blocks.items():
        shift, color, words = looks[name]
        agents = np.flatnonzero(np.isfinite(each).any(axis=0))
        low, middle, high = np.nanquantile(each[:, agents], [0.05, 0.5, 0.95], axis=0)
        axes.vlines(agents + shift, low, high, color=color, linewidth=1.8)
        axes.plot(agents + shift, middle, "o", color=color, markersize=5, label=words)
    count = next(iter(blocks.values())).shape[1]
    labels = [f"{agent}\nlies" if agent in malicious else str(agent) for agent in range(count)]
    axes.set_xticks(range(count), labels, color=INK)
    axes.set_yscale("symlog", linthresh=1.0)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("distance", color=INK)
    axes.set_xlabel("client", color=INK)
    axes.set_title("How far purification moved what each client sent", loc="left", fontsize=10, color=INK)
    axes.legend(frameon=False, fontsize=9)
    plain(axes)
    figure.tight_layout()
    return figure
