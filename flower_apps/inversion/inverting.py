"""From recordings to reconstructions: what a curious server makes of the updates it kept, and how near it comes.

The attack is given observations alone. Originals, where they lie beside the recordings, are compared with what it
returned: which image is which is decided by the assignment with the smallest total error, for the scores alone. The
labels are shown to attacks that say labels="known", an assumption of theirs.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from thornbed.attacks.inversion import InversionWarning, Reconstruction
from thornbed.flower_apps.inversion.observing import observations
from thornbed.flower_apps.inversion.peak_memory import peak_memory
from thornbed.flower_apps.settings import BadSettings, plugins
from thornbed.protocol.randomness import generator
from thornbed.protocol.recordings import BadRecording, Recording, load_originals, load_update
from thornbed.tasks.metrics.assignment import assign, matching_success_rate
from thornbed.tasks.metrics.images import SSIM_WINDOW, lpips, lpips_missing, psnr, ssim


@dataclass(frozen=True, kw_only=True, eq=False)
class Inverted:
    """One recording, what the attack made of it, and what it really was.

    Attributes
    ----------
    images, labels : of the reconstruction, in the order of the originals where these are known.
    originals : (n, C, H, W) and their labels (n,), None where they are not known.
    samples : of attacks that put updates together, which sample of the client each image is taken for.
    """

    path: Path
    recording: Recording
    reconstruction: Reconstruction
    order: Tensor
    originals: tuple[Tensor, Tensor] | None

    @property
    def images(self) -> Tensor:
        """The reconstructed images (n, C, H, W), in the order of the originals where these are known."""
        return self.reconstruction.images[self.order]

    def scores(self) -> dict[str, list[float | None] | None]:
        """Return PSNR (dB), SSIM and LPIPS, one number an original; None where they cannot be computed."""
        if self.originals is None:
            return dict.fromkeys(("psnr", "ssim", "lpips"))
        true = self.originals[0]
        large = min(true.shape[2:]) >= SSIM_WINDOW
        found = {
            "psnr": psnr(self.images, true),
            "ssim": ssim(self.images, true) if large else None,
            "lpips": lpips(self.images, true) if true.shape[1] in (1, 3) else None,
        }
        return {name: None if values is None else _finite(values) for name, values in found.items()}

    def right_labels(self) -> float | None:
        """Return the share of the labels, as a bag, that the attack has right."""
        if self.originals is None:
            return None
        left = self.originals[1].tolist()
        right = 0
        for label in self.reconstruction.labels.tolist():
            if label in left:
                left.remove(label)
                right += 1
        return right / len(self.originals[1])


@dataclass(frozen=True, kw_only=True, eq=False)
class Inversions:
    """What became of several recordings together."""

    spec: str
    results: Sequence[Inverted]
    warnings: Sequence[str]
    seconds: float
    peak_memory_mib: float | None

    def metrics(self) -> dict[str, float | None]:
        """Return the means over all images: what a run's summary says of its curious server."""
        scores = [result.scores() for result in self.results]
        means = {
            name: mean_known([value for score in scores for value in score[name] or ()])
            for name in ("psnr", "ssim", "lpips")
        }
        return {
            **means,
            "label_accuracy": mean_known([result.right_labels() for result in self.results]),
            "matching_success_rate": self._matched(),
            "seconds_per_step": mean_known([result.reconstruction.seconds_per_step or None for result in self.results]),
        }

    def beware(self) -> list[str]:
        """Return what a reader of the numbers has to know, a sentence each, without a full stop."""
        missing = lpips_missing() if any(result.originals is not None for result in self.results) else None
        unknown = sum(result.originals is None for result in self.results)
        failures = [
            f"the inversion of {result.path.name} ended early: {result.reconstruction.failure}"
            for result in self.results
            if result.reconstruction.failure
        ]
        some = f"what is behind {unknown} of {len(self.results)} updates is not known here, so nothing is compared"
        return [*self.warnings, *failures, *([missing] if missing else []), *([some] if unknown else [])]

    def _matched(self) -> float | None:
        """Return how many of the images of the first of two epochs are taken for themselves in the second."""
        rates, sizes = [], []
        for client in dict.fromkeys(result.recording.facts.client for result in self.results):
            mine = [result for result in self.results if result.recording.facts.client == client]
            epochs = sorted({result.recording.facts.epoch for result in mine})[:2]
            images = [_identified(result for result in mine if result.recording.facts.epoch == e) for e in epochs]
            if len(epochs) < 2 or any(found is None for found in images):
                continue
            first, second = ([*found] if found else [] for found in images)
            rows = {sample: row for row, (sample, _) in enumerate(second)}
            pairs = [(row, rows[sample]) for row, (sample, _) in enumerate(first) if sample in rows]
            rates.append(matching_success_rate(pairs, [true for _, true in first], [true for _, true in second]))
            sizes.append(len(first))
        return sum(map(math.prod, zip(rates, sizes, strict=True))) / sum(sizes) if rates else None


def _identified(results: Any) -> list[tuple[int, bytes]] | None:
    """Return for each image of an epoch the sample it is taken for and what it really is; None where one is unknown."""
    found = []
    for result in results:
        if result.originals is None or not result.reconstruction.samples:
            return None
        originals = result.originals[0]
        for place, row in enumerate(result.order.tolist()):
            found.append((result.reconstruction.samples[row], originals[place].numpy().tobytes()))
    return found


def invert(
    paths: Sequence[Path], spec: str, *, seed: int, device: torch.device | str = "cpu", model: str | None = None
) -> Inversions:
    """Read recordings and attack them all together; `model` is in place of the one that they name.

    Raises BadSettings, with the file where one is at fault, for what cannot be read, is no recording of a model here,
    or cannot be attacked so.
    """
    attack = attack_of(spec)
    recordings = []
    try:
        for path in paths:
            recording = load_update(path)
            if model is not None:
                recording = replace(recording, facts=recording.facts.model_copy(update={"model": model}))
            recordings.append((path, recording, load_originals(path, recording.facts)))
    except BadRecording as error:
        raise BadSettings(str(error)) from None
    kept = [(path, recording, None if true is None else true[1]) for path, recording, true in recordings]
    observed = observations(kept, device)
    began = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught, peak_memory(torch.device(device)) as peak:
        warnings.simplefilter("always", InversionWarning)
        try:
            found = attack(observed, generator(seed, "curious"))
        except ValueError as error:
            raise BadSettings(str(error)) from error
    said = [str(warning.message) for warning in caught if issubclass(warning.category, InversionWarning)]
    if any(each.facts.learning_rate is None for _, each, _ in recordings):
        said.append("an update that is not of plain SGD with a known learning rate is read as a direction alone")
    results = [
        Inverted(
            path=path,
            recording=recording,
            reconstruction=reconstruction,
            order=torch.arange(len(reconstruction.images))
            if originals is None
            else assign(reconstruction.images, originals[0]),
            originals=originals,
        )
        for (path, recording, originals), reconstruction in zip(recordings, found, strict=True)
    ]
    return Inversions(
        spec=spec,
        results=results,
        warnings=list(dict.fromkeys(said)),
        seconds=time.perf_counter() - began,
        peak_memory_mib=peak.mib,
    )


def attack_of(spec: str) -> Any:
    """Return the attack of a spec, after it has had the chance to refuse its options; raises BadSettings."""
    parts = plugins.parse_sum(spec)
    if len(parts) != 1:
        raise BadSettings(f"--curious takes one inversion, not {spec!r}")
    attack = plugins.load("curious", parts[0])
    try:
        attack([], generator(0, "check"))
    except ValueError as error:
        raise BadSettings(str(error)) from error
    return attack


def _finite(values: Tensor) -> list[float | None]:
    return [float(value) if math.isfinite(value) else None for value in values]


def mean_known(values: Sequence[float | None]) -> float | None:
    """Return the mean of the values that there are; None where there is none."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
