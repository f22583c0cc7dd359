"""The flags of `thornbed run`: made of the settings, of which there is one list, and read back into them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from thornbed.flower_apps.settings import AUTO, BadSettings, Settings, kind_of, settings_from

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
