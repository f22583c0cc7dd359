"""From checked settings to a finished run in one of the engines, with its progress in the terminal."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from thornbed.flower_apps.engines import last_words
from thornbed.flower_apps.federation import OnRound, default_output
from thornbed.flower_apps.inversion.files import beware_of
from thornbed.flower_apps.metrics import METRICS, named, rates_first
from thornbed.flower_apps.records.folder import Folder
from thornbed.flower_apps.records.provenance import origin
from thornbed.flower_apps.resolving import check, check_address, resolve
from thornbed.flower_apps.run import threat
from thornbed.flower_apps.schemes.scheme import scheme_of
from thornbed.flower_apps.settings import (
    NONE,
    BadSettings,
    Interrupted,
    Resolved,
    RunFailed,
    Settings,
    plugins,
    refusal_of_text,
)
from thornbed.flower_apps.settings.tuned import not_chosen
from thornbed.protocol.whole_files import no_room
from thornbed.strategies import WHAT_TO_TRY, CannotBegin, RunStopped


def prepare(settings: Settings) -> Resolved:
    """Resolve the settings, refuse what cannot work, and choose the output folder.

    Raises BadSettings with one sentence; nothing has been started then, and nothing written but an empty folder.
    """
    try:
        resolved = resolve(settings)
        check_address(resolved)
        # In deployment the data and the records lie on other machines, whose own server app checks them.
        here = resolved.engine != "deployment"
        paths = {
            "output": resolved.output or default_output(resolved),
            "record": resolved.record,
            "start_from": resolved.start_from,
            "data_dir": resolved.data_dir,
        }
        if here:
            paths = {name: str(Path(path).expanduser().resolve()) for name, path in paths.items() if path}
        if certificates := resolved.root_certificates:
            paths["root_certificates"] = str(Path(certificates).expanduser().resolve())
        for name, path in paths.items():
            if strange := refusal_of_text(path):  # what was typed may be plain, and lie below a folder that is not
                raise BadSettings(f"--{name.replace('_', '-')} {strange}, not {path!r}")
        resolved = resolved.model_copy(update={**paths, "origin": origin()})
        check(resolved, data=here)
        if here:
            with Folder(Path(resolved.output)).opened(resolved):
                pass
    except (ValueError, OSError) as error:
        raise BadSettings(" ".join(str(error).split())) from error
    return resolved


def run(settings: Resolved, out: Console, err: Console) -> None:
    """Run prepared settings, show progress on `err` and the result on `out`; raises RunFailed and Interrupted."""
    model = threat.threat_model(settings, len(settings.malicious))
    scheme = scheme_of(settings)
    said = threat.spoken(model, settings.engine, scheme.counted)
    out.print(said, markup=False, highlight=False, soft_wrap=True)
    if left := not_chosen(settings):
        said = f"Not chosen on {plugins.parse(settings.task).name}, as on other tasks: {'; '.join(left)}."
        out.print(said, markup=False, highlight=False, soft_wrap=True)
    first = scheme.attack_begins if settings.attack != NONE else ""
    with progress(err) as bar:
        task = bar.add_task(title(settings), total=settings.rounds, figures=first)
        # Inline everything happens in this process, which cannot say itself that it died.
        here = settings.engine == "inline"
        with (
            last_words.spoken_of(Path(settings.output), WHAT_TO_TRY) if here else nullcontext(),
            interruptible(settings),
        ):
            summary = start(
                settings, lambda line: bar.update(task, completed=line["round"], figures=_doing(settings, line))
            )
    if summary is not None:
        out.print(_result(settings, summary))
        if summary.get("defense_acted") == 0:
            defenses = " and ".join(name for name in (settings.strategy, settings.defense) if name != NONE)
            said = f"Beware: {defenses} changed nothing in any round; see 'defense' in metrics.jsonl."
            out.print(said, markup=False)
        folder = Path(settings.output)
        for sentence in (*scheme.beware(summary["metrics"], Folder(folder).lines()), *beware_of(folder)):
            out.print(f"Beware: {sentence}.", markup=False, highlight=False, soft_wrap=True)
        if summary["replies_dropped"]:
            out.print(f"{summary['replies_dropped']} replies were dropped; metrics.jsonl says which and why.")
    where = f" (on the machine of the SuperLink {settings.superlink})" if settings.engine == "deployment" else ""
    out.print(f"Records: {settings.output}{where}", markup=False, highlight=False, soft_wrap=True)


def _doing(settings: Resolved, line: Mapping[str, Any]) -> str:
    """Return a round's figures, and after the last one what a curious server does then, which takes its time."""
    inverting = settings.curious != NONE and line["round"] == settings.rounds
    return figures(line) + ("  inverting updates" if inverting else "")


def _result(settings: Resolved, summary: Mapping[str, Any]) -> Table:
    metrics = summary["metrics"]
    rows = {
        "task": settings.task,
        "strategy": settings.strategy,
        "attack": settings.attack,
        "malicious clients": f"{len(summary['malicious'])} of {settings.num_clients}",
        **{METRICS[name].words: METRICS[name].shown(metrics[name]) for name in rates_first(named([metrics]))},
        "seconds": f"{summary['seconds']:.1f}",
    }
    table = Table(show_header=False)
    for name, value in rows.items():
        table.add_row(name, escape(value))
    return table


def start(settings: Resolved, on_round: OnRound) -> dict[str, Any] | None:
    """Hand the settings to their engine and return its summary, None where only another machine has it.

    Raises RunFailed with a hint where the checkpoint is, or what a run would begin with.
    """
    engine = plugins.find("engine", settings.engine)
    try:
        return engine(settings, on_round)
    except RunStopped as error:
        raise RunFailed(f"{error}; the checkpoint is in {settings.output}") from error
    except CannotBegin as error:
        raise RunFailed(str(error)) from error


@contextmanager
def interruptible(settings: Resolved) -> Iterator[None]:
    """Say on Ctrl-C, and where the disk is full, what is kept and how to go on."""
    try:
        yield
    except OSError as failure:
        if not (full := no_room(failure)):
            raise
        again = f"thornbed run --resume --output {shlex.quote(settings.output)}"
        raise RunFailed(f"{full}; make room, and go on with: {again}") from None
    except KeyboardInterrupt:
        done = Folder(Path(settings.output)).rounds_done()
        kept = f"{done or 0} of {settings.rounds} rounds are in {settings.output}"
        raise Interrupted(
            f"interrupted; {kept}; go on with: thornbed run --resume --output {shlex.quote(settings.output)}"
        ) from None


def progress(console: Console) -> Progress:
    """Return the bar of a run: rounds, figures of the latest one, time passed."""
    return Progress(
        TextColumn("{task.description}", table_column=Column(ratio=1, no_wrap=True)),
        BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=8)),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[figures]}", table_column=Column(no_wrap=True)),
        TimeElapsedColumn(table_column=Column(no_wrap=True)),
        console=console,
        expand=True,
    )


def title(settings: Resolved) -> str:
    """Return what is run, in a few words."""
    attack = "no attack" if settings.attack == "none" else plugins.parse_sum(settings.attack)[0].name
    return f"{plugins.parse(settings.strategy).name}, {attack}, {settings.engine}"


def figures(line: Mapping[str, Any]) -> str:
    """Return a round's figures for the progress bar."""
    known = ((METRICS[name], line[name]) for name in named([line]))
    return "  ".join(f"{metric.short} {metric.shown(value)}" for metric, value in known if metric.short)
