"""Updates of several epochs read together: images that are in several of them have to explain all of these.

Paper: Xu, Hong, Huang, Chen, Decouchant, "AGIC", SRDS 2022, Section IV-B and Equation 5. The images that two or more
updates share are sought together with the other images of those updates, which each update has for itself; so an
update of n images that shares one with each of n others takes part in n searches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from thornbed.attacks.inversion import Observation, Reconstruction
from thornbed.attacks.inversion._matching import Place
from thornbed.attacks.inversion._problem import ObservedView, Problem

LayerWeights = Callable[[Observation], Mapping[str, float]]


@dataclass(frozen=True, eq=False)
class Joint:
    """A problem, and which of its images is which image of which observation: (observation, image) -> row."""

    problem: Problem
    shared: Mapping[Place, int]


def by_client(observations: Sequence[Observation]) -> list[list[list[int]]]:
    """Return, client by client and epoch by epoch, the places of the observations in the order given."""
    clients: dict[int, dict[int, list[int]]] = {}
    for place, each in enumerate(observations):
        clients.setdefault(each.client, {}).setdefault(each.epoch, []).append(place)
    return [[epochs[number] for number in sorted(epochs)] for epochs in clients.values()]


def in_order(
    observations: Sequence[Observation], labels: Sequence[Tensor], epochs: Sequence[Sequence[int]]
) -> list[list[Place | None]]:
    """Return the samples of a client whose k-th updates of all epochs hold the same samples, in any order.

    Within an update samples are told apart by their labels. Each is a list of (observation, image), one an epoch.
    Raises ValueError where the epochs have different numbers of updates, or those different numbers of samples.
    """
    found: list[list[Place | None]] = []
    if len({len(epoch) for epoch in epochs}) > 1:
        raise ValueError(
            'agic(epochs="ordered") needs as many updates in every epoch of a client: '
            f"there are {', '.join(str(len(epoch)) for epoch in epochs)}"
        )
    for updates in zip(*epochs, strict=True):
        if len({observations[update].num_samples for update in updates}) > 1:
            raise ValueError(
                'agic(epochs="ordered") needs as many samples in the same update of every epoch: '
                f"num_samples = {', '.join(str(observations[update].num_samples) for update in updates)}"
            )
        orders = [labels[update].argsort(stable=True).tolist() for update in updates]
        found += [list(zip(updates, images, strict=True)) for images in zip(*orders, strict=True)]
    return found


def joint_problems(
    observations: Sequence[Observation],
    labels: Sequence[Tensor],
    samples: Sequence[Sequence[Place | None]],
    weigh: LayerWeights,
    gamma: float,
) -> list[Joint]:
    """Return the problems that together hold every sample once; `samples` are lists of (observation, image) or None.

    Samples of the same updates are in one problem. Of its updates the first, in the earliest epoch, has the weight 1
    and each other `gamma`. An image that only one of a problem's updates has is part of it, but not of what it is for.
    """
    sharing: dict[tuple[int, ...], list[list[Place]]] = {}
    for sample in samples:
        places = [place for place in sample if place is not None]
        sharing.setdefault(tuple(update for update, _ in places), []).append(places)
    weights = {update: weigh(observations[update]) for updates in sharing for update in updates}
    joints = []
    for updates, group in sharing.items():
        shared = {place: row for row, places in enumerate(group) for place in places}
        report = [labels[places[0][0]][places[0][1]] for places in group]
        views = []
        for number, update in enumerate(updates):
            rows = []
            for image in range(observations[update].num_samples):
                if (update, image) in shared:
                    rows.append(shared[update, image])
                else:
                    rows.append(len(report))
                    report.append(labels[update][image])
            view_gamma = 1.0 if number == 0 else gamma
            views.append(
                ObservedView(observations[update], torch.tensor(rows), labels[update], weights[update], view_gamma)
            )
        joints.append(Joint(Problem(tuple(views), torch.stack(report)), shared))
    return joints


def per_observation(
    observations: Sequence[Observation],
    labels: Sequence[Tensor],
    joints: Sequence[Joint],
    found: Sequence[Reconstruction],
) -> list[Reconstruction]:
    """Return for each observation its images, each from the problem it was sought in, and its own labels.

    Where several problems gave them, losses and seconds are means, `best_step` is the latest, and `failure` the first.
    """
    source = {
        place: (row, result) for joint, result in zip(joints, found, strict=True) for place, row in joint.shared.items()
    }
    gathered = []
    for update, each in enumerate(observations):
        parts = [source[update, image] for image in range(each.num_samples)]
        results = list({id(result): result for _, result in parts}.values())
        gathered.append(
            Reconstruction(
                images=torch.stack([result.images[row] for row, result in parts]),
                labels=labels[update].cpu(),
                losses=torch.stack([result.losses for result in results]).mean(dim=0),
                best_step=max(result.best_step for result in results),
                seconds_per_step=sum(result.seconds_per_step for result in results) / len(results),
                together=max(result.together for result in results),
                snapshots=torch.stack([result.snapshots[:, row] for row, result in parts], dim=1),
                snapshot_steps=results[0].snapshot_steps,
                failure=next((result.failure for result in results if result.failure), None),
            )
        )
    return gathered


def with_samples(found: Sequence[Reconstruction], samples: Sequence[Sequence[Place | None]]) -> list[Reconstruction]:
    """Return the reconstructions with the number of the sample that each of their images is taken for."""
    number = {place: k for k, sample in enumerate(samples) for place in sample if place is not None}
    return [
        replace(each, samples=tuple(number[update, image] for image in range(len(each.images))))
        for update, each in enumerate(found)
    ]
