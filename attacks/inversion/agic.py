"""Read several local steps as one, weigh later layers more, and put updates of several epochs together.

Paper: J. Xu, C. Hong, J. Huang, L. Y. Chen, J. Decouchant, "AGIC: Approximate Gradient Inversion Attack on Federated
Learning", SRDS 2022: Equation 4 (one-batch approximation), Equations 6 to 8 and Table I (layer weights), Section IV-B
and Equation 5 (several epochs). What the paper leaves open, such as the weight of batch norm, the start and whether the
images are kept in their box, is an option.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal, get_args

import torch

from thornbed.attacks import Knowledge
from thornbed.attacks.inversion import LocalSteps, Observation, Reconstruction
from thornbed.attacks.inversion._epochs import by_client, in_order, joint_problems, per_observation, with_samples
from thornbed.attacks.inversion._labels import Labels, infer_labels
from thornbed.attacks.inversion._layers import NormWeight, Shape, layer_weights
from thornbed.attacks.inversion._matching import Place, chains
from thornbed.attacks.inversion._problem import Objective, alone
from thornbed.attacks.inversion._search import Decay, Search, Start, search

NEEDS = frozenset({Knowledge.SERVER_MODEL, Knowledge.HONEST_UPDATES})

Epochs = Literal["alone", "paired", "matched", "ordered"]


def agic(
    observations: Sequence[Observation],
    generator: torch.Generator,
    *,
    steps: int = 10_000,
    step_size: float = 0.1,
    total_variation: float = 1e-4,
    signed: bool = False,
    decay: Decay = "none",
    box: bool = False,
    start: Start = "normal",
    restarts: int = 1,
    labels: Labels = "gradinversion",
    local_steps: LocalSteps = "one_batch",
    shape: Shape = "linear",
    beta: float = 50.0,
    relu_modifier: bool = True,
    batch_norm: NormWeight = "mean",
    epochs: Epochs = "alone",
    gamma: float = 0.1,
    matching_steps: int = 2_000,
    pooling: int = 2,
    label_filter: bool = True,
    parallel: int = 16,
    snapshots: int = 0,
) -> list[Reconstruction]:
    """Return a reconstruction of each observation.

    Parameters
    ----------
    steps, step_size : of Adam, on the images in (x - mean) / std.
    total_variation : its weight in the loss; the paper has 1e-4 for untrained ResNet20-4, 1e-2 for trained ones.
    signed : Adam is given the sign of the gradient alone.
    decay : of the step size: "step" divides by ten after 3/8, 5/8, 7/8 of the steps, "cosine" falls to 0.
    box : after every step images are brought back into [0, 1].
    start : "normal" noise around the mean, "uniform" noise in [0, 1], or "zero", the mean itself.
    restarts : searches from as many starts; the one with the smallest loss counts.
    labels : "known" to the server, or inferred: "idlg" for one sample, "gradinversion" for distinct labels, "counts"
        for such as repeat.
    local_steps : several are read as "one_batch" (Equation 4), or "simulated" in every step of the search. Inferred
        labels are sorted, so simulation goes through them in this order, which need not be the client's.
    shape, beta : the weights of convolutions from 1 for the first to beta for the last; beta=1 weighs all alike. The
        paper has 50 for untrained networks and 2 for trained ones.
    relu_modifier : divide each of them by the share of its gradient that is not zero.
    batch_norm : what its parameters weigh: the "mean" of the convolutions as fully connected layers do, the weight of
        the "preceding" convolution, or "none".
    epochs : updates of one client in several epochs are read "alone"; "matched", by what `matching_steps` of the search
        give of each alone, averaged over squares of `pooling` pixels, among updates that have a label in common
        (`label_filter`); or "ordered", where the k-th updates of all epochs hold the same samples. The updates of a
        client that were seen in one epoch only are read alone. "paired" stops after the matching: the images are those
        of the `matching_steps`, each alone, and `samples` say which are taken for the same.
    gamma : the weight of updates that are not of a sample's first epoch (Equation 5).
    parallel : so many inversions are computed together; it changes the time and the memory, no result beyond rounding.
    snapshots : iterates that are kept on the way.

    Raises ValueError for options out of range, for labels that cannot be inferred, for models without convolutions
    (unless beta is 1), for local steps to be simulated at an unknown learning rate, and where no client has the several
    epochs that were asked for. Warns where one batch is a bad approximation.
    """
    settings = Search(
        steps=steps,
        step_size=step_size,
        signed=signed,
        decay=decay,
        box=box,
        start=start,
        restarts=restarts,
        parallel=parallel,
        snapshots=snapshots,
    )
    objective = Objective(distance="cosine", local_steps=local_steps, total_variation=total_variation)
    settings.check("agic")
    objective.check("agic", observations)
    _check(observations, shape, beta, batch_norm, epochs, gamma, matching_steps, pooling)
    weigh = partial(layer_weights, shape=shape, beta=beta, relu_modifier=relu_modifier, batch_norm=batch_norm)
    inferred = [infer_labels("agic", each, labels) for each in observations]
    singles = [alone(each, own, weigh(each)) for each, own in zip(observations, inferred, strict=True)]
    if epochs == "alone" or not observations:
        return search(singles, objective, settings, generator)
    clients = by_client(observations)
    if all(len(of_client) < 2 for of_client in clients):
        raise ValueError(f'agic(epochs="{epochs}") needs observations of at least two epochs of a client: there is one')
    samples: list[list[Place | None]] = []
    if epochs == "ordered":
        for of_client in clients:
            samples += in_order(observations, inferred, of_client)
    else:
        quick = replace(settings, steps=matching_steps, snapshots=0)
        if epochs == "paired":
            quick = replace(quick, snapshots=snapshots)
        first_look = search(singles, objective, quick, generator)
        for of_client in clients:
            looks = [[first_look[update] for update in epoch] for epoch in of_client]
            found = chains(looks, pooling=pooling, label_filter=label_filter)
            samples += [_named(chain, of_client) for chain in found]
        if epochs == "paired":
            return with_samples(first_look, samples)
    joints = joint_problems(observations, inferred, samples, weigh, gamma)
    results = search([joint.problem for joint in joints], objective, settings, generator)
    return with_samples(per_observation(observations, inferred, joints, results), samples)


def _named(chain: Sequence[Place | None], epochs: Sequence[Sequence[int]]) -> list[Place | None]:
    """Return places (observation, image) for places (update of its epoch, image), epoch by epoch."""
    return [None if place is None else (epoch[place[0]], place[1]) for place, epoch in zip(chain, epochs, strict=True)]


def _check(
    observations: Sequence[Observation],
    shape: Shape,
    beta: float,
    batch_norm: NormWeight,
    epochs: Epochs,
    gamma: float,
    matching_steps: int,
    pooling: int,
) -> None:
    chosen: Mapping[str, tuple[object, object]] = {
        "shape": (shape, Shape),
        "batch_norm": (batch_norm, NormWeight),
        "epochs": (epochs, Epochs),
    }
    for option, (value, kinds) in chosen.items():
        if value not in get_args(kinds):
            raise ValueError(f"agic needs {option} out of {', '.join(get_args(kinds))}: {option} = {value}")
    for option, number in (("beta", beta), ("gamma", gamma)):
        if not 0 < number < float("inf"):
            raise ValueError(f"agic needs a finite {option} > 0: {option} = {number}")
    for option, whole in (("matching_steps", matching_steps), ("pooling", pooling)):
        if whole < 1:
            raise ValueError(f"agic needs {option} >= 1: {option} = {whole}")
    for each in observations:
        if epochs in ("matched", "paired") and pooling > (side := min(each.sample_shape[1:])):
            raise ValueError(f"agic needs pooling of at most a side of the images: pooling = {pooling}, side = {side}")
