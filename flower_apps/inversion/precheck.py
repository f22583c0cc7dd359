"""What an inversion will be shown, foreseen before a run: what it would refuse after the training it refuses now.

The server asks for the work, so it knows of every update all but the update itself. An attack is shown updates like
those of the run whose gradient is no number; it checks them as it will check the real ones, and has then nothing to
search for.
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from thornbed.attacks.inversion import InversionWarning, UnknownLearningRate
from thornbed.flower_apps.inversion.files import metrics_of
from thornbed.flower_apps.inversion.inverting import attack_of
from thornbed.flower_apps.inversion.observing import observation
from thornbed.flower_apps.inversion.watching import check_recordings, observed_facts, recording_of
from thornbed.flower_apps.records.folder import Folder
from thornbed.flower_apps.schemes.horizontal.local_work import claimed_samples
from thornbed.flower_apps.schemes.horizontal.roles import is_attacked
from thornbed.flower_apps.schemes.horizontal.run import HorizontalRun
from thornbed.flower_apps.settings import NONE, BadSettings, Resolved
from thornbed.protocol.randomness import generator
from thornbed.protocol.recordings import LARGEST, Facts


def check_watching(run: HorizontalRun, *, data: bool) -> None:
    """Refuse what a curious server cannot read or invert; raises BadSettings.

    data : whether the data are on this machine. In deployment they are on the server's, and a client is taken to hold
        what --partition gives it of them.
    """
    settings = run.settings
    if settings.curious != NONE:
        attack_of(settings.curious)
    if not data:
        return
    if len(run.task.sample_shape) != 3:
        raise BadSettings(
            f"--curious and --record are for images: a sample of --task {settings.task} has shape "
            f"{run.task.sample_shape}"
        )
    check_recordings(settings)
    if settings.curious != NONE:
        check_inversion(run)


@dataclass(frozen=True)
class Update:
    """An update that a run will read: what will be known of it, and whether that has the labels."""

    facts: Facts
    labelled: bool


def check_inversion(run: HorizontalRun) -> None:
    """Show the attack what the run will read, as far as it is known.

    Of updates that are alike a few stand for all, so that it takes about as long with hundreds of clients and rounds
    as with a few. Raises BadSettings with what the attack says, and for a run that goes on where nothing is left.
    """
    settings = run.settings
    updates = foreseen(run)
    if not updates and _is_over(settings):
        raise BadSettings(
            f"--curious {settings.curious} has nothing to invert: the rounds that it reads are done in "
            f"{settings.output}, and nobody kept their updates"
        )
    _show(run, few_of(updates))


def _show(run: HorizontalRun, updates: Sequence[Update]) -> None:
    """Show the attack updates of no number; raises BadSettings with what the attack says to their facts."""
    settings, network = run.settings, run.network
    names = dict(network.named_parameters())
    nothing = {name: torch.tensor(torch.nan).expand(parameter.shape) for name, parameter in names.items()}
    shown = []
    for facts, labelled in ((update.facts, update.labelled) for update in updates):
        labels = torch.zeros(facts.num_samples, dtype=torch.int64) if labelled else None
        shown.append(observation(facts, network, nothing, labels))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InversionWarning)  # the inversion itself will say it
        try:
            attack_of(settings.curious)(shown, generator(settings.seed, "curious"))
        except UnknownLearningRate as error:
            raise BadSettings(f"{error}; of --optimizer sgd, without options, the server knows it") from error
        except ValueError as error:
            raise BadSettings(str(error)) from error


def foreseen(run: HorizontalRun) -> list[Update]:
    """Return the updates that the inversion of a run will be shown, by round and client, where every client replies.

    Of a run that goes on these are the rounds that are left, and what is kept of those that are done.
    """
    settings = run.settings
    cohort, done = run.cohort(), _rounds_done(settings)
    claims: dict[tuple[int, bool], tuple[int, bool]] = {}
    updates = []
    for number in settings.rounds_read:
        attacked = is_attacked(settings, number)
        for client in settings.clients_read(cohort.drawn(number)):
            if number <= done and not recording_of(settings, number, client).exists():
                continue
            if (client, attacked) not in claims:
                claims[client, attacked] = claimed_samples(run, client, number)
            claim, labelled = claims[client, attacked]
            if claim <= LARGEST:  # a larger one is not kept
                updates.append(Update(observed_facts(run, claim, number, client), labelled))
    return updates


def few_of(updates: Sequence[Update]) -> list[Update]:
    """Return some of the updates, in their order, that an attack refuses if it refuses them all.

    Left out are epochs of a client that are like one before, but for its second, which shows that there are several;
    where all are alike, in each of them updates like one before; and clients that are then like another.
    """
    clients: dict[int, dict[int, list[int]]] = {}
    for place, update in enumerate(updates):
        clients.setdefault(update.facts.client, {}).setdefault(update.facts.epoch, []).append(place)
    kinds = [_kind(update) for update in updates]
    courses: dict[Hashable, list[int]] = {}
    for epochs in clients.values():
        alike = {number: tuple(kinds[place] for place in epochs[number]) for number in sorted(epochs)}
        first = {epoch: number for number, epoch in reversed(alike.items())}
        chosen = [epochs[number] for number in sorted({*first.values(), *list(alike)[:2]})]
        if len(first) == 1:
            chosen = [sorted({kinds[place]: place for place in reversed(epoch)}.values()) for epoch in chosen]
        course = tuple(tuple(kinds[place] for place in epoch) for epoch in chosen)
        courses.setdefault(course, [place for epoch in chosen for place in epoch])
    return [updates[place] for place in sorted(place for course in courses.values() for place in course)]


def _kind(update: Update) -> Update:
    """Return the update without what tells it from others like it."""
    return Update(update.facts.model_copy(update={"client": 0, "epoch": 1, "round": 1}), update.labelled)


def _rounds_done(settings: Resolved) -> int:
    return Folder(Path(settings.output).expanduser()).rounds_done() or 0 if settings.resume else 0


def _is_over(settings: Resolved) -> bool:
    """Tell whether a run goes on that has neither something to read left nor inversions by the same attack."""
    goes_on = 0 < _rounds_done(settings) < settings.rounds
    return goes_on and metrics_of(Path(settings.output).expanduser(), settings.curious) is None
