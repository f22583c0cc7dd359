"""One run from its settings to its records, whatever stands behind the grid."""

from __future__ import annotations

import re
import shlex
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from thornbed.defenses.reporting import did_something
from thornbed.flower_apps.inversion.files import metrics_of, write_inversions
from thornbed.flower_apps.inversion.inverting import invert
from thornbed.flower_apps.inversion.watching import recordings_folder, recordings_of, watched
from thornbed.flower_apps.metrics import named
from thornbed.flower_apps.records.folder import Folder
from thornbed.flower_apps.run.stored_model import START, digest_of
from thornbed.flower_apps.run.threat import threat_model
from thornbed.flower_apps.schemes.horizontal.run import HorizontalRun
from thornbed.flower_apps.schemes.scheme import built, scheme_of
from thornbed.flower_apps.settings import NONE, BadSettings, Resolved, RunFailed
from thornbed.protocol.vector import to_arrays, to_tensors
from thornbed.strategies import Cohort, FedAvg, NumberedClients, Resumed

OnRound = Callable[[Mapping[str, Any]], None]


def conduct(settings: Resolved, grid: Grid, on_round: OnRound | None = None) -> dict[str, Any]:
    """Run a federation of resolved settings, write its records, and return the summary.

    `on_round` is called with every line of metrics.jsonl as it is written. Raises BadSettings before anything
    starts, and `strategies.RunStopped` where too few replies are usable; the checkpoint of the last whole round stays.
    """
    folder = Folder(Path(settings.output or default_output(settings)).expanduser())
    with folder.opened(settings) as done:
        if done >= settings.rounds and (summary := folder.summary()) is not None:
            before = folder.settings().curious
            if settings.curious != before:
                raise BadSettings(
                    f"--curious is {settings.curious} and was {before} in {folder.path}, whose run is complete; to try "
                    "several on the same updates, keep them with --record and take thornbed invert"
                )
            return summary
        run = _Federation(settings, folder, on_round)
        try:
            return run.go(grid, done)
        finally:
            for logger in run.loggers:
                logger.close()


def default_output(settings: Resolved) -> str:
    """Return a folder below runs/ that tells what was run, and when."""
    parts = [settings.task, settings.strategy, settings.attack, f"seed{settings.seed}"]
    words = [re.sub(r"\(.*?\)", "", part).replace(" ", "").replace("+", "-") for part in parts]
    return str(Path("runs") / "-".join([*words, time.strftime("%Y%m%d-%H%M%S")]))


def _replaced(cohort: Cohort) -> dict[str, Any]:
    """Return what a round's line says of clients that another node holds since; nothing where there is none."""
    if not isinstance(cohort, NumberedClients) or not cohort.replaced:
        return {}
    # Node ids have 64 bits, and many readers of JSON keep 53 bits of a number.
    return {"replaced": [{"client": r.client, "node": str(r.node), "by": str(r.by)} for r in cohort.replaced]}


class _Federation:
    """The server's side of one run: it tests the model after every round and keeps the records."""

    def __init__(self, settings: Resolved, folder: Folder, on_round: OnRound | None) -> None:
        self.settings, self.folder, self.on_round = settings, folder, on_round
        self.run = built(settings)
        self.learning = scheme_of(settings).learn(self.run)
        self.strategy = self.learning.strategy
        self.loggers = self.run.loggers(folder.path)
        self.last: dict[str, Any] = {}

    def go(self, grid: Grid, done: int) -> dict[str, Any]:
        """Run the rounds that are left and return the summary."""
        started = time.perf_counter()
        begun = self.folder.rounds_done() is not None
        if begun:
            tensors, self.strategy.memory = self.folder.load_checkpoint(self.learning.layout())
            if isinstance(self.strategy, FedAvg):
                self.strategy.last_rounds = self.folder.last_rounds()
        else:
            tensors = dict(self.learning.initial())
        rounds = self.settings.rounds
        earlier = sum(line["seconds"] for line in self.folder.lines())
        self.folder.write_config(self.settings, self._facts(grid, begun=begun))
        strategy: Strategy = self.strategy
        if self.settings.watches:
            assert isinstance(self.run, HorizontalRun)  # the check has seen to both
            assert isinstance(self.strategy.cohort, NumberedClients)
            strategy = watched(strategy, self.run, self.strategy.cohort)
        if done:
            strategy = Resumed(strategy, done)
        self._round_started = started
        result = strategy.start(
            grid,
            to_arrays(tensors),
            num_rounds=rounds - done,
            timeout=self.settings.reply_timeout,
            evaluate_fn=lambda server_round, arrays: self.finish_round(server_round + done, arrays),
        )
        final = to_tensors(result.arrays) if result.arrays else dict(tensors)
        self.learning.keep(self.folder.path, final)
        summary = self._summary(earlier + time.perf_counter() - started)
        if self.settings.curious != NONE:
            summary["metrics"] |= self._inverted()
        self.folder.finish(self.settings, summary)
        return {"settings": self.settings.model_dump(), **summary}

    def _facts(self, grid: Grid, *, begun: bool) -> dict[str, Any]:
        """Return what config.json says beside the settings."""
        facts = {**self.learning.facts, "threat_model": threat_model(self.settings, len(self.learning.malicious))}
        if start := self.settings.start_from:
            # of a run that goes on as it was: the file may be another one by now, or gone
            facts[START] = self.folder.fact(START) if begun else digest_of(start)
        if bundle := grid.run.fab_hash:  # Flower ran a bundle: this is which one
            facts["flower_bundle"] = bundle
        return facts

    def _inverted(self) -> dict[str, float | None]:
        """Invert what was read in the rounds, and return how near that comes; what was read is kept where it fails."""
        folder = recordings_folder(self.settings)
        spec, paths = self.settings.curious, recordings_of(self.settings)
        try:
            if not paths and (earlier := metrics_of(self.folder.path, spec)) is not None:
                return earlier  # the rounds that a complete run was given afterwards were none to read
            if not paths:
                raise BadSettings(f"no reply that could be read came from the clients chosen ({folder})")
            inversions = invert(paths, spec, seed=self.settings.seed, device=self.run.device)
        except BadSettings as error:
            again = f"thornbed run --resume --output {shlex.quote(str(self.folder.path))} --curious {shlex.quote(spec)}"
            raise RunFailed(
                f"the training is done and kept, and its updates cannot be inverted: {error}; once the cause is gone, "
                f"or with another --curious: {again}"
            ) from error
        write_inversions(self.folder.path, inversions)
        if not self.settings.record:
            shutil.rmtree(folder)
        return inversions.metrics()

    def finish_round(self, server_round: int, arrays: ArrayRecord) -> MetricRecord | None:
        """Test the model, write the round's line, then its checkpoint."""
        known = {line["round"]: line for line in self.folder.lines()} if not self.last else {}
        if server_round in known:  # the checkpoint that a resumed run starts from
            self.last = known[server_round]
            return None
        tensors = to_tensors(arrays)
        before = time.perf_counter()
        metrics = self.learning.test(tensors)
        now = time.perf_counter()
        line: dict[str, Any] = {"round": server_round, **metrics, "seconds": now - self._round_started}
        account = self.strategy.account
        if account is not None and server_round:
            line |= {
                "train_loss": account.train_loss,
                "seconds_training": account.seconds_training,
                "seconds_aggregation": account.seconds_aggregation,
                "seconds_evaluation": now - before,
                "sampled": account.sampled,
                "sampled_malicious": [client for client in account.sampled if client in self.learning.malicious],
                "dropped": account.dropped,
                "defense": account.defense,
                "defense_acted": did_something(account.defense, len(account.sampled) - len(account.dropped)),
                **_replaced(self.strategy.cohort),
            }
            if account.attack:
                line["attack"] = account.attack
        self._round_started = now
        self.last = self.folder.append(line)
        self.folder.checkpoint(self.settings, tensors, server_round, self.strategy.memory)
        for logger in self.loggers:
            logger.log(self.last)
        if self.on_round is not None:
            self.on_round(self.last)
        return MetricRecord({name: value for name, value in metrics.items() if value is not None})

    def _summary(self, seconds: float) -> dict[str, Any]:
        lines = self.folder.lines()
        acted = [line["defense_acted"] for line in lines if line.get("defense_acted") is not None]
        return {
            "metrics": {name: self.last[name] for name in named([self.last])},
            "rounds": self.last["round"],
            "seconds": seconds,
            "seconds_training": sum(line.get("seconds_training", 0.0) for line in lines),
            "seconds_aggregation": sum(line.get("seconds_aggregation", 0.0) for line in lines),
            "malicious": sorted(self.learning.malicious),
            # A client of vertical learning may miss many steps of a round.
            "replies_dropped": sum(drop.get("steps", 1) for line in lines for drop in line.get("dropped", ())),
            "defense_was_told": threat_model(self.settings, len(self.learning.malicious))["defense_was_told"],
            # Rounds in which the defense changed anything; null where it does not say.
            "defense_acted": sum(acted) if acted else None,
        }
