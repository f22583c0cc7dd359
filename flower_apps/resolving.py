"""From settings as a user gave them to a run that can start.

What was left to the task is filled in (`resolve`); what cannot work is refused, whatever the scheme of learning, before
anything starts (`check`).
"""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from thornbed.flower_apps.inversion.precheck import check_watching
from thornbed.flower_apps.loggers import missing_package
from thornbed.flower_apps.records.folder import Folder, settings_digest
from thornbed.flower_apps.run.client import state_folder
from thornbed.flower_apps.run.run import Run
from thornbed.flower_apps.run.run import cohort as cohort_of
from thornbed.flower_apps.run.threat import check_threat
from thornbed.flower_apps.schemes.horizontal.run import HorizontalRun
from thornbed.flower_apps.schemes.scheme import built, check_kinds, check_unused, scheme_of
from thornbed.flower_apps.settings import AUTO, ENGINES, NONE, SPECS, BadSettings, Resolved, Settings, plugins
from thornbed.flower_apps.settings.tuned import TAKEN, tuned, with_tuned
from thornbed.protocol.client_state import ClientState, LivingMemory, LostState


def resolve(settings: Settings) -> Resolved:
    """Fill in everything that is "auto" (but the device, which every machine chooses for itself), and check numbers.

    Raises BadSettings or BadSpec with a sentence; loads no data.
    """
    if settings.engine not in ENGINES:
        raise BadSettings(f"--engine takes {', '.join(ENGINES)}, not {settings.engine!r}")
    scheme = scheme_of(settings)
    check_kinds(settings, scheme)
    strategy = plugins.parse(settings.strategy).name
    defaults = replace(scheme.defaults(settings), **tuned(settings.task).settings.get(strategy, {}))
    filled: dict[str, Any] = {
        name: getattr(defaults, name)
        for name in ("model", "optimizer", "learning_rate", "batch_size", "local_epochs", "rounds", "partition")
        if getattr(settings, name) == AUTO
    }
    check_unused(settings, scheme, {name: getattr(defaults, name, None) for name in scheme.unused})
    num_clients = defaults.num_clients if settings.num_clients == AUTO else settings.num_clients
    per_round = (
        min(defaults.clients_per_round, num_clients)
        if settings.clients_per_round == AUTO
        else settings.clients_per_round
    )
    if per_round > num_clients:
        raise BadSettings(f"--clients-per-round {per_round} is more than --num-clients {num_clients}")
    min_replies = (
        scheme.least_replies(settings.strategy, per_round)
        if settings.min_replies == AUTO
        else int(settings.min_replies)
    )
    if min_replies > per_round:
        flag = "--num-clients" if "clients_per_round" in scheme.unused else "--clients-per-round"
        raise BadSettings(f"--min-replies {min_replies} is more than {flag} {per_round}")
    filled |= {
        "num_clients": num_clients,
        "clients_per_round": per_round,
        "min_replies": min_replies,
        "num_malicious": _num_malicious(settings, num_clients, defaults.malicious_share),
    }
    for name in (*SPECS, "logger"):
        # One spelling for one thing: a run that is resumed compares texts.
        filled[name] = " + ".join(map(str, plugins.parse_sum(filled.get(name, getattr(settings, name))))) or NONE
    filled |= {name: with_tuned(settings.task, filled[name]) for name in TAKEN}
    resolved = Resolved(**{**settings.model_dump(), **filled})
    _check_rounds(resolved)
    _check_attackers(resolved)
    _check_curious(resolved)
    return resolved


def check_address(settings: Settings) -> None:
    """Refuse an address where it has no meaning, or none where it has; for the side that starts a run.

    Raises BadSettings. Flower's own command knows the address by itself, and its apps need none.
    """
    superlink, certificates = settings.superlink, settings.root_certificates
    if settings.engine != "deployment":
        if superlink or certificates:
            flag = "--superlink" if superlink else "--root-certificates"
            raise BadSettings(f"{flag} is for --engine deployment, and --engine is {settings.engine}")
        return
    if certificates and not Path(certificates).expanduser().is_file():
        raise BadSettings(f"--root-certificates {certificates} is no file")
    if not superlink:
        raise BadSettings("--engine deployment needs --superlink HOST:PORT, the address of a running SuperLink")
    host, _, port = superlink.rpartition(":")
    if not re.fullmatch(r"[^\s:/]+", host) or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise BadSettings(f"--superlink takes HOST:PORT, such as 10.0.0.5:8000, not {superlink!r}")


def _check_rounds(settings: Resolved) -> None:
    """Refuse no rounds where there is no trained model to test, and where replies are to be read."""
    if settings.rounds == 0 and not settings.start_from:
        raise BadSettings("--rounds 0 trains nothing and tests the model of --start-from; name one, or train")
    if settings.rounds == 0 and settings.watches:
        flag = "--curious" if settings.curious != NONE else "--record"
        raise BadSettings(f"{flag} reads the replies of rounds, and --rounds 0 has none")


def _check_attackers(settings: Resolved) -> None:
    """Refuse numbers of attackers in a round, or of rounds, that cannot be."""
    malicious, per_round = len(settings.malicious), settings.malicious_per_round
    if per_round != AUTO:
        if settings.engine == "deployment":
            raise BadSettings("--malicious-per-round is not for --engine deployment: there nobody knows who attacks")
        honest = settings.num_clients - malicious
        if not settings.clients_per_round - honest <= per_round <= min(malicious, settings.clients_per_round):
            raise BadSettings(
                f"--malicious-per-round {per_round} cannot be: a round has {settings.clients_per_round} clients, of "
                f"{malicious} malicious and {honest} honest ones"
            )
    if settings.attack_share != 1 and settings.attack == NONE:
        raise BadSettings(f"--attack-share {settings.attack_share:g} has no --attack; name one")


def _check_curious(settings: Resolved) -> None:
    """Refuse a choice of replies that nobody reads, and one that chooses none."""
    clients, every = settings.curious_clients, settings.curious_every
    if not settings.watches:
        if clients != AUTO or every != AUTO:
            flag = "--curious-clients" if clients != AUTO else "--curious-every"
            raise BadSettings(f"{flag} has no --curious and no --record; name what is done with the replies")
        return
    if clients in (AUTO, "all"):
        return
    numbers = {int(client) for client in clients.split(",") if client}
    if not numbers or max(numbers) >= settings.num_clients:
        raise BadSettings(
            f"--curious-clients takes numbers of clients, 0 to {settings.num_clients - 1}, not {clients!r}"
        )
    cohort, rounds = cohort_of(settings), settings.rounds_read
    if not any(settings.clients_read(cohort.drawn(number)) for number in rounds):
        raise BadSettings(
            f"--curious-clients {clients} take part in none of the rounds that are read ({len(rounds)} of "
            f"{settings.rounds}); in the first there are {', '.join(map(str, cohort.drawn(1)))}"
        )


def _num_malicious(settings: Settings, num_clients: int, share: float) -> int:
    named, count = settings.named_malicious, settings.num_malicious
    if named and named[-1] >= num_clients:
        raise BadSettings(f"--malicious-ids names client {named[-1]}; clients are 0 to {num_clients - 1}")
    if named and count not in (AUTO, len(named)):
        raise BadSettings(
            f"--malicious-ids names {len(named)} clients and --num-malicious says {count}; give one of them"
        )
    if settings.engine == "deployment":
        if named or count not in (AUTO, 0):
            flag = "--malicious-ids" if named else "--num-malicious"
            raise BadSettings(
                f'{flag} is not for --engine deployment: there a node is malicious that says role="malicious" in its '
                "--node-config"
            )
        return 0
    if settings.attack == NONE:
        if named or count not in (AUTO, 0):
            raise BadSettings(
                "there are malicious clients and no --attack; name an attack, or have no malicious clients"
            )
        return 0
    if named:
        return len(named)
    wanted = max(1, round(share * num_clients)) if count == AUTO else int(count)
    if wanted > num_clients:
        raise BadSettings(f"--num-malicious {wanted} is more than --num-clients {num_clients}")
    return wanted


def check(settings: Resolved, *, data: bool = True) -> None:
    """Build everything once and refuse what cannot work, before anything starts; raises ValueError.

    With `data` false (deployment: the data lie on other machines) only what needs none is checked.
    """
    scheme, run = scheme_of(settings), built(settings)
    check_threat(run.attacks, scheme.known_in(settings.engine))
    _check_loggers(settings)
    scheme.check(run, data)
    if run.goes_on and scheme.keeps_state and not run.deployed:
        _check_kept(run)
    if settings.watches:
        assert isinstance(run, HorizontalRun)  # other schemes refuse what asks for it
        check_watching(run, data=data)


def _check_kept(run: Run) -> None:
    """Refuse a run that goes on where a client has not what it kept after the last round that it took part in."""
    records, folder = Folder(run.output), state_folder(run.settings, {})
    done = records.rounds_done() or 0
    if done == run.settings.rounds:
        return
    records.check_format(run.settings.rounds)  # before anything is said of what its clients kept elsewhere
    for client, last in sorted(records.last_rounds().items()):
        state = ClientState(client, LivingMemory(), folder, settings_digest(run.settings))
        # A client that is counted for a step that it missed has kept what it had after the round all the same.
        kept = [each for each in state.saved_rounds() if last <= each <= done]
        for each in kept:
            try:
                state.load(each)
            except LostState as lost:
                raise BadSettings(f"{lost}; start anew with another --output") from None
        if not kept:
            raise BadSettings(
                f"--output {run.output} cannot be gone on with: what client {client} kept after round {last} is not in "
                f"{folder}; start anew with another --output"
            )


def _check_loggers(settings: Resolved) -> None:
    for spec in plugins.parse_sum(settings.logger):
        plugins.load("logger", spec)
        module = sys.modules[plugins.find("logger", spec.name).__module__]
        if package := missing_package(module):
            raise BadSettings(f"--logger {spec.name} needs the package {package}: pip install 'thornbed[{spec.name}]'")
