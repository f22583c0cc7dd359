"""Find triggers in the server's model and train against them: samples carry them under their true labels.

Paper: K. Zhang, G. Tao, Q. Xu, S. Cheng, S. An, Y. Liu, S. Feng, G. Shen, P.-Y. Chen, S. Ma, X. Zhang, "FLIP: A
Provable Defense Framework for Backdoor Mitigation in Federated Learning", ICLR 2023, Section 3: trigger inversion on
the benign client, model hardening, rejection of predictions of low confidence. Which pairs of classes are worth the
work is told by a warm-up, as in G. Tao, Y. Liu, G. Shen, Q. Xu, S. An, Z. Zhang, X. Zhang, "Model Orthogonalization:
Class Distance Hardening in Neural Networks for Better Security", IEEE S&P 2022.

Written without the paper's full text at hand, from what is known of it. What differs, knowingly: triggers are inverted
once a round, on the model that the server sent, and not again while the client trains, which bounds the cost of a
client; only pairs drawn at random enter the warm-up, other ones in every round; a stamped sample replaces its clean
self, so that the number of samples a client claims says nothing about the defense; a trigger is stamped on samples of
every class but its target, since most backdoors lead from all classes to one; and a trigger that does not work is not
used. The authors' published code warms up with one trigger a target, from all classes at once; goes on with the pair
whose trigger grew most under training (at first, with the largest), three times in ten with a random one, where the
smallest are taken here; inverts both directions of a pair; and starts from the triggers of earlier rounds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from thornbed.defenses.reporting import acted
from thornbed.defenses.trigger_inversion import Triggers, invert

MIN_SAMPLES = 2  # of a class that triggers are to lead away from: what flips a single sample is an adversarial example


@dataclass(frozen=True, kw_only=True)
class Flip:
    """Stamp inverted triggers on `fraction` of a client's samples, labels kept; reject below `min_confidence`.

    A warm-up of `warmup_steps` steps inverts a trigger for each of `candidates` pairs (source, target) out of the
    client's own labels, on `samples_per_class` samples of the source; the `num_pairs` whose masks are smallest are then
    inverted in `inversion_steps` steps. A trigger is used where it flips the samples it was made on. A client costs
    about (candidates * warmup_steps + num_pairs * inversion_steps) * samples_per_class times what one sample of
    training costs. `min_confidence` is that of the authors' settings for attacks that go on in every round; they start
    from a trained model, and one that is still unsure of everything loses its accuracy by it.
    """

    num_pairs: int = 3
    candidates: int = 10
    warmup_steps: int = 12
    inversion_steps: int = 30
    samples_per_class: int = 6
    fraction: float = 0.5
    min_confidence: float = 0.4

    modalities: ClassVar[frozenset[str]] = frozenset({"image", "table"})

    def __post_init__(self) -> None:
        for option in ("num_pairs", "candidates", "warmup_steps", "inversion_steps"):
            if (value := getattr(self, option)) < 1:
                raise ValueError(f"flip needs {option} >= 1: {option} = {value}")
        if self.samples_per_class < MIN_SAMPLES:
            raise ValueError(
                f"flip needs samples_per_class >= {MIN_SAMPLES}: samples_per_class = {self.samples_per_class}"
            )
        if self.num_pairs > self.candidates:
            raise ValueError(
                f"flip needs num_pairs <= candidates: num_pairs = {self.num_pairs}, candidates = {self.candidates}"
            )
        for option in ("fraction", "min_confidence"):
            if not 0 <= (share := getattr(self, option)) <= 1:
                raise ValueError(f"flip needs 0 <= {option} <= 1: {option} = {share}")

    def harden(self, network: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the samples (N, ...) with round(fraction * N) of them stamped, in their places, and the labels y (N,).

        `x` are images (N, C, H, W) in [0, 1] or tables (N, F); a pattern lies in [0, 1] for images, and for tables in
        the range that each feature has in x: a value that the client never sees is never tried. The stamped are drawn
        at random, and for each one of the triggers that do not lead to its own label; fewer are stamped where no
        trigger is left for some.

        A client with a single class, or without two samples of any, trains on what it has, and so does one in whose
        model no trigger is found. Reports `hardened_share` (of the samples), `triggers` used, `mask_size` (the mean
        sum of their masks, in pixels or features; not reported without triggers).

        Raises ValueError for samples that are neither images nor tables of floats (text), and where there are not as
        many labels as samples.
        """
        _check(x, y)
        device = next((parameter.device for parameter in network.parameters()), x.device)
        triggers = self._triggers(network, x.to(device), y.to(device), generator)
        if triggers is None or len(triggers[1]) == 0:
            acted(hardened_share=0.0, triggers=0)
            return x, y
        found, targets = triggers
        shuffled = torch.randperm(len(x), generator=generator)
        # A trigger that leads to t teaches samples of t what the attacker wants them to know.
        allowed = (targets.cpu() != y.cpu()[:, None]).float()  # (N, P)
        rows = shuffled[allowed.any(dim=1)[shuffled]][: round(self.fraction * len(x))]
        hardened = x.clone()
        if len(rows):
            which = torch.multinomial(allowed[rows], 1, generator=generator)[:, 0]
            hardened[rows.to(x.device)] = found.stamp(x.to(device)[rows.to(device)], which.to(device)).to(x.device)
        acted(
            hardened_share=len(rows) / len(x),
            triggers=len(targets),
            mask_size=float(found.mask.flatten(1).sum(dim=1).mean()),
        )
        return hardened, y

    def _triggers(
        self, network: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator
    ) -> tuple[Triggers, Tensor] | None:
        """Return the triggers to use with their targets (P,), or None where the client has no pair of classes."""
        classes, counts = y.unique(return_counts=True)
        pairs = torch.tensor(
            [
                (int(source), int(target))
                for source, count in zip(classes, counts)
                for target in classes
                if source != target and count >= MIN_SAMPLES
            ]
        )
        if len(pairs) == 0:
            return None
        pairs = pairs[torch.randperm(len(pairs), generator=generator)[: self.candidates]].to(y.device)
        samples = torch.stack([self._of_class(x, y == source, generator) for source in pairs[:, 0]])
        image = x.dim() == 4
        low = x.new_zeros(()) if image else x.amin(dim=0)
        high = x.new_ones(()) if image else x.amax(dim=0)
        steps = self.warmup_steps
        warm = invert(network, samples, pairs[:, 1], low, high, steps=steps, generator=generator)
        closest = warm.score.argsort(stable=True)[: self.num_pairs]
        samples, targets, steps = samples[closest], pairs[closest, 1], self.inversion_steps
        triggers = invert(network, samples, targets, low, high, steps=steps, generator=generator)
        return triggers.select(triggers.work), targets[triggers.work]

    def _of_class(self, x: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
        """Return `samples_per_class` samples out of those of the mask, (S, ...), some of them twice where few are."""
        rows = mask.nonzero()[:, 0]
        order = torch.randperm(len(rows), generator=generator)[torch.arange(self.samples_per_class) % len(rows)]
        return x[rows[order.to(rows.device)]]


def _check(x: Tensor, y: Tensor) -> None:
    if x.dtype != torch.float32 or x.dim() not in (2, 4):
        kind = str(x.dtype).removeprefix("torch.")
        raise ValueError(
            "flip stamps triggers on images (N, C, H, W) or tables (N, F) of float32, and on no text: "
            f"samples are {kind} {tuple(x.shape)}"
        )
    if len(x) != len(y):
        raise ValueError(f"flip needs one label a sample: {len(x)} samples, {len(y)} labels")
