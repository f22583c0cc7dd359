"""All of multitask learning that can be refused before a run starts."""

from __future__ import annotations

import numpy as np
import torch

from thornbed.attacks.multitask import NodesView
from thornbed.flower_apps.run.client import channel_of
from thornbed.flower_apps.schemes.multitask.run import Aim, MultitaskRun
from thornbed.flower_apps.settings import BadSettings, plugins
from thornbed.flower_apps.settings.plugins import Spec
from thornbed.protocol.randomness import generator
from thornbed.protocol.vector import to_tensors
from thornbed.strategies.mocha import OMEGA
from thornbed.tasks.mocha.objective import Coupling, unrelated
from thornbed.tasks.multitask import Array, Loss, Points

SEARCH = "iterations"  # the option of an attack that says how long it searches


def check(run: MultitaskRun, data: bool) -> None:
    """Build everything once and refuse what cannot work, before anything starts.

    With `data` false (deployment: the data lie on other machines) only what needs none is checked.
    """
    settings, made = run.settings, run.strategy
    loss = _check_data(run) if data else "hinge"
    for trim in run.trimmings:
        trim(*_made(1)[0], np.ones(2), loss)
    # Tries the defenses of the server, and whether the relation matrix goes with the lambdas.
    made.coupling(to_tensors(made.initial(2, settings.num_clients))[OMEGA].numpy())
    if made.learn_omega and made.learn_omega >= settings.rounds:
        raise BadSettings(
            f"mocha(learn_omega={made.learn_omega}) learns no relation matrix in --rounds {settings.rounds}; give it a "
            "smaller number, or more rounds"
        )
    _check_relations(run)
    if not run.attacks:
        return
    if not run.deployed and not settings.num_malicious:
        raise BadSettings(
            "--num-malicious 0 leaves the attack without a target; ratio=0.0 is what measures targets unattacked"
        )
    rehearse(Aim(settings.attack, run.targets or (0,)), settings.num_clients, loss)
    if settings.engine == "simulation":
        channel_of(settings, {}, 0)


def rehearse(aim: Aim, num_clients: int, loss: Loss = "hinge") -> None:
    """Try an attack on few made points; raises ValueError where it cannot be made, or its options are out of range."""
    if len(attacks := plugins.parse_sum(aim.attack)) != 1:
        raise BadSettings(f"--attack takes one attack of multitask learning, not {len(attacks)} joined by +")
    view = NodesView(
        points=tuple(Points(*each) for each in _made(num_clients)),
        targets=aim.targets,
        sources=aim.sources,
        loss=loss,
        coupling=Coupling(unrelated(num_clients), 0.1, 0.1),
        intercept=False,
    )
    [spec] = attacks
    taken = {option.name for option in plugins.describe("attack", spec.name).options}
    if SEARCH in taken and not spec.options.get(SEARCH, 1) < 1:  # fewer than one are for the attack to refuse
        spec = Spec(spec.name, {**spec.options, SEARCH: 1})
    plugins.load("attack", spec)(view, generator(0, "check"))


def _check_data(run: MultitaskRun) -> Loss:
    settings, task = run.settings, run.task
    if len(task.nodes) != settings.num_clients:
        raise BadSettings(
            f"--num-clients is {settings.num_clients}, and --task {settings.task} has {len(task.nodes)} nodes here"
        )
    if round(settings.local_epochs * max(map(len, task.train))) == 0:
        raise BadSettings(f"--local-epochs {settings.local_epochs:g} is less than a point of any node")
    return task.loss


def _check_relations(run: MultitaskRun) -> None:
    """Refuse a defense that looks at weights where the relation matrix is held: it would never see any."""
    made = run.strategy
    if made.learn_omega:
        return
    first = np.array([[1.0, 2.0, 4.0], [2.0, 1.0, 3.0], [4.0, 3.0, 1.0]])
    seen = (first, first * [1.0, 1.0, -1.0])
    for spec, defend in zip(run.specs_in("defenses/relations"), made.relations, strict=True):
        one, other = (defend(weights, unrelated(3), (made.lambda1, made.lambda2)) for weights in seen)
        if not np.array_equal(one, other):
            raise BadSettings(
                f"--defense {spec.name} looks at the nodes' weights, so it needs a relation matrix that is learnt: "
                "give the strategy learn_omega, such as 'mocha(learn_omega=10)'"
            )


def _made(num_clients: int) -> list[tuple[Array, Array]]:
    x = torch.randn(num_clients, 4, 2, generator=generator(0, "check"), dtype=torch.float64).numpy()
    return [(each, np.array([1.0, -1.0, 1.0, -1.0])) for each in x]
