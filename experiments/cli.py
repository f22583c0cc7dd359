"""The command line: `thornbed run`, `list`, `tour`. Bad input ends with one sentence and exit code 2.

The flags of `thornbed run` are made of the settings, of which there is one list, and read back into them.
"""

from __future__ import annotations

import inspect
import json
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, Optional

import click
import typer
from rich.console import Console
from rich.table import Table

from thornbed.experiments.interrupts import Interrupts
from thornbed.flower_apps.settings import AUTO, BadSettings, Interrupted, RunFailed, Settings, kind_of, settings_from
from thornbed.protocol.whole_files import no_room

OWN_WORDS = ("device", "min_replies", "malicious_per_round", "node_timeout")  # whose help says what the default is


def signature() -> inspect.Signature:
    """Return a function's signature with a typer option for every setting."""
    parameters = []
    for name, field in Settings.model_fields.items():
        extra: Any = field.json_schema_extra
        kind, default = kind_of(name), field.default
        if name == "origin":
            continue
        flag = f"--{name.replace('_', '-')}"
        metavar = {int: "INTEGER", float: "NUMBER"}.get(kind, "TEXT")
        shown: Any = "the task's own" if default == AUTO else str(default)
        words: dict[str, Any] = {} if kind is bool else {"metavar": metavar}
        option: Any = typer.Option(
            flag,
            help=field.description,
            rich_help_panel=extra["group"],
            show_default=False if default in ("", False) or name in OWN_WORDS else shown,
            **words,
        )
        typed: Any = Optional[bool] if kind is bool else Optional[str]  # noqa: UP045 (typer reads these)
        parameters.append(
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[typed, option])
        )
    return inspect.Signature(parameters)


def settings_of(given: Mapping[str, str | bool]) -> Settings:
    """Turn what was typed into settings; with --resume, what was not typed is as in the run that goes on."""
    values = {name: _value(name, text) for name, text in given.items()}
    if not values.get("resume"):
        return settings_from(values)
    if "output" not in values:
        raise BadSettings("--resume needs --output, the folder of the run that is to go on")
    if values.get("engine") == "deployment":  # the folder is on another machine, which compares the settings
        return settings_from(values)
    from thornbed.flower_apps.records.folder import Folder

    before = Folder(Path(str(values["output"])).expanduser()).settings().model_dump()
    if "engine" in values:  # how another engine was reached says nothing to this one
        before |= {"superlink": "", "root_certificates": ""}
    return settings_from({**before, **values})


def _value(name: str, text: str | bool) -> Any:
    """Read a flag's text as the number its setting takes; what is no number stays text and is refused later."""
    if isinstance(text, str) and kind_of(name) in (int, float):
        with suppress(ValueError):
            return kind_of(name)(text)
    return text


app = typer.Typer(
    name="thornbed",
    help="Federated-learning security testbed: attacks, defenses and learning schemes that compose, on Flower.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
out, err = Console(), Console(stderr=True)


def _version(asked: bool) -> None:
    if asked:
        from thornbed.flower_apps.records.provenance import installed, revision

        known = revision()
        out.print(
            ", ".join(f"{name} {number}" for name, number in installed().items()), highlight=False, soft_wrap=True
        )
        out.print(f"git {known}" if known else "no git checkout", highlight=False)
        raise typer.Exit


@app.callback()
def _thornbed(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which versions are installed.")
    ] = False,
) -> None: ...


def _run(**flags: str | bool | None) -> None:
    """Run one federation: a task, a strategy, an attack, in one of three engines.

    What is not said is the task's own default. Plug-ins take options in brackets: 'krum(num_byzantine=4)';
    parts of an attack are joined by +. `thornbed list` shows all of them.

    [bold]Examples[/bold]

    thornbed run --task digits --strategy "invariant(tau=0.2)" --attack pixel_trigger

    thornbed run --task cifar10 --data-dir data --attack "edge_case(target=9)" --partition "dirichlet(alpha=0.5)"

    thornbed run --resume --output runs/mine
    """
    from thornbed.experiments.runs import launch  # torch and Flower are loaded only for a command that needs them

    given = {name: value for name, value in flags.items() if value is not None}
    settings = launch.prepare(settings_of(given))
    launch.run(settings, out, err)


_run.__signature__ = signature()  # type: ignore[attr-defined]
_run.__annotations__ = {name: parameter.annotation for name, parameter in signature().parameters.items()}
app.command("run")(_run)


@app.command()
def tour(
    output: Annotated[Path, typer.Option(help="Folder for the records and report.html.")] = Path("runs/tour"),
) -> None:
    """See it work: a backdoor, a defense, and Flower's virtual client engine, on real handwritten digits."""
    from thornbed.experiments.tour import take

    take(output, out, err)


@app.command("list")
def list_plugins(
    kind: Annotated[str | None, typer.Argument(help="Only this kind: task, model, strategy, attack, ...")] = None,
    output_format: Annotated[Literal["table", "json"], typer.Option("--format", help="table or json.")] = "table",
) -> None:
    """Print every plug-in of every kind, with its options and its paper."""
    from thornbed.flower_apps.settings import plugins

    if kind is not None and kind not in plugins.FOLDERS:
        raise BadSettings(f"there is no kind {kind!r}; there are {', '.join(plugins.FOLDERS)}")
    kinds = [kind] if kind else list(plugins.FOLDERS)
    found = [plugins.describe(each, name) for each in kinds for name in plugins.available(each)]
    if output_format == "json":
        print(json.dumps([asdict(plugin) for plugin in found], indent=2))
        return
    for each in kinds:
        elsewhere = r"a key of \[about] in a sweep file" if each == "figure" else "for your own code"
        flag = f"--{each}" if each in Settings.model_fields else f"{each}, {elsewhere}"
        table = Table(title=flag, title_justify="left", title_style="bold", expand=True, show_lines=True)
        table.add_column("name and options", ratio=2)
        table.add_column("what it is", ratio=3)
        table.add_column("source", ratio=3, style="dim")
        for plugin in (plugin for plugin in found if plugin.kind == each):
            options = "".join(
                f"\n  {option.name}: {option.type}" + ("" if option.default is None else f" = {option.default}")
                for option in plugin.options
            )
            needs = f"\nThe attacker must know {' and '.join(plugin.needs)}." if plugin.needs else ""
            table.add_row(
                f"[bold]{plugin.name}[/bold]" + options.replace("[", r"\["), plugin.summary + needs, plugin.source
            )
        out.print(table)


Jobs = Annotated[int, typer.Option(min=1, metavar="N", help="Cells that run at a time, each in a process of its own.")]
Seeds = Annotated[str | None, typer.Option(help="Seeds in place of those of the file, such as 0,1,2.")]
DataDir = Annotated[str | None, typer.Option(help="Folder with data, as for run.")]
Output = Annotated[
    Path | None, typer.Option(help="Folder for the cells; by default of the file's name in runs/sweeps.")
]


@app.command()
def sweep(
    file: Annotated[Path, typer.Argument(help="TOML file: flags of run, and lists of them.")],
    jobs: Jobs = 1,
    seeds: Seeds = None,
    output: Output = None,
    data_dir: DataDir = None,
) -> None:
    """Run every combination of the lists in a file; finished cells are skipped, so the same command goes on."""
    from thornbed.experiments.sweeps import command

    command.sweep(file, jobs, seeds, output, data_dir, out, err)


@app.command()
def reproduce(
    name: Annotated[str | None, typer.Argument(help="PAPER/TABLE, one of those that --list names.")] = None,
    listed: Annotated[bool, typer.Option("--list", help="Say which tables there are, their time and data.")] = False,
    scale: Annotated[Literal["cpu", "paper"], typer.Option(help="A size for two cores, or the paper's own.")] = "cpu",
    jobs: Jobs = 1,
    seeds: Seeds = None,
    output: Output = None,
    data_dir: DataDir = None,
) -> None:
    """Run a table of a paper again and put its numbers beside ours."""
    from thornbed.experiments.sweeps import command

    if listed:
        command.list_presets(out)
        return
    if name is None:
        raise BadSettings("reproduce takes PAPER/TABLE; thornbed reproduce --list says which there are")
    command.reproduce(name, scale, jobs, seeds, output, data_dir, out, err)


@app.command()
def invert(
    recordings: Annotated[
        list[Path], typer.Argument(metavar="PATH...", help="Recordings, or folders of them: --record makes some.")
    ],
    attack: Annotated[str, typer.Option("--with", metavar="TEXT", help="Inversion, such as 'agic(steps=500)'.")],
    output: Annotated[
        Path | None, typer.Option(help="Folder for what comes out; by default a new one below runs/.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Model in place of the one that the recordings name.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Everything random follows from it.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps; auto takes a GPU where there is one.")] = AUTO,
) -> None:
    """Reconstruct images from recorded updates: of a run with --record, or of your own Flower app (docs/inversion.md).

    [bold]Example[/bold]

    thornbed invert recordings --with "agic(steps=1000, beta=5.0)"
    """
    from thornbed.experiments import inverting as command

    command.run(recordings, attack, output, model, seed, device, out, err)


@app.command()
def certify(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Output folder of a run of collaborative_inference.")],
    silent: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Clients that send nothing, such as 6,9; by default each in turn."),
    ] = None,
) -> None:
    """Say how many lying clients the manifold of a run tolerates, for certain (Theorems 2 and 4 of the CoPur paper).

    [bold]Example[/bold]

    thornbed certify runs/mine --silent 6
    """
    from thornbed.experiments import certifying

    certifying.run(folder, silent, out, err)


@app.command()
def show(folder: Annotated[Path, typer.Argument(metavar="DIR", help="Output folder of a run, or of a sweep.")]) -> None:
    """Show a run or a sweep in the terminal."""
    from thornbed.experiments.sweeps import command

    command.show(folder, out)


@app.command()
def report(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Output folders of runs or sweeps.")],
    output: Annotated[
        Path | None, typer.Option(help="Folder for report.html and tables; by default the first.")
    ] = None,
) -> None:
    """Write one report.html about runs, and their table as CSV, JSON and LaTeX."""
    from thornbed.experiments.sweeps import command

    command.report(folders, output, out)


def main() -> NoReturn:
    """Run the command line and leave with its exit code: 0 done, 1 stopped on the way, 2 refused, 130 interrupted."""
    interrupts = Interrupts()
    interrupts.listen()
    try:
        code = app(standalone_mode=False)
        if code == 130:  # of typer's, for a KeyboardInterrupt
            raise KeyboardInterrupt
        sys.exit(code if isinstance(code, int) else 0)
    except SystemExit:
        raise
    except Interrupted as error:
        _leave(str(error), 130)
    except BaseException as failure:
        if interrupts.seen or isinstance(failure, KeyboardInterrupt | click.exceptions.Abort):
            _leave("interrupted", 130)
        if isinstance(failure, click.ClickException):
            _leave(failure.format_message(), 2)
        if full := no_room(failure):
            _leave(f"{full}; make room, and give the same command again", 1)
        if isinstance(failure, BadSettings | RunFailed):
            _leave(str(failure), 2 if isinstance(failure, BadSettings) else 1)
        raise


def _leave(sentence: str, code: int) -> NoReturn:
    if code == 130:  # another Ctrl-C would find nothing to end but this sentence
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sentence:
        style = "red" if code != 130 else "yellow"
        err.print(f"thornbed: {sentence}", style=style, markup=False, highlight=False, soft_wrap=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
