"""The settings of a run: flags of the command line, keys of the run config and keys of a sweep are these fields.

A setting that is "auto" is the task's own default; `flower_apps.resolving.resolve` fills it in.
"""

from __future__ import annotations

import json
import math
import re
import shlex
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

AUTO: Final = "auto"
NONE: Final = "none"  # no attack, no defense
SPECS = (
    "task",
    "model",
    "strategy",
    "defense",
    "partition",
    "optimizer",
    "attack",
    "curious",
)  # texts that name plug-ins
ENGINES = ("inline", "simulation", "deployment")


class BadSettings(ValueError):
    """Settings that cannot be run; the text is one sentence that says what would be right."""


class Busy(BadSettings):
    """A folder that another process is writing into: nothing is wrong with it, and it is left alone."""


class RunFailed(RuntimeError):
    """A run that ended without a result; the text says why, and what is kept."""


class Interrupted(RuntimeError):
    """A run that its user interrupted; the text says what is kept and how to go on."""


def _flag(group: str, text: str, **bounds: Any) -> Any:
    return Field(description=text, json_schema_extra={"group": group}, **bounds)


WHAT, WHO, HOW, WHERE = "What is run", "Who takes part", "How it is trained", "Where it runs"
Auto = Literal["auto"]
# Flower's run config is TOML, whose integers have 64 bits; no count comes near.
Count = Annotated[int, Field(ge=1, lt=2**31)]
Positive = Annotated[float, Field(gt=0)]


class Settings(BaseModel):
    """Everything that decides what a run does; frozen, and checked field by field."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    task: Annotated[str, _flag(WHAT, "Task: digits, mnist, fashion_mnist, cifar10, ...")] = "digits"
    model: Annotated[str, _flag(WHAT, "Model, such as cnn or 'resnet20(width=64)'.")] = AUTO
    strategy: Annotated[str, _flag(WHAT, "Aggregation rule or strategy, such as 'invariant(tau=0.2)'.")] = "fedavg"
    attack: Annotated[str, _flag(WHAT, "Attack of the malicious clients, parts joined by +, or none.")] = "none"
    defense: Annotated[str, _flag(WHAT, "Defense on the honest clients, parts joined by +, or none.")] = "none"
    curious: Annotated[str, _flag(WHAT, "What a curious server inverts updates with, such as 'agic(steps=500)'.")] = (
        NONE
    )
    start_from: Annotated[
        str,
        _flag(WHAT, "Model to begin with, such as the model.safetensors of an earlier run; by default a new one."),
    ] = ""
    partition: Annotated[str, _flag(WHO, "How the data are divided, such as 'dirichlet(alpha=0.5)'.")] = AUTO
    num_clients: Annotated[Count | Auto, _flag(WHO, "Number of clients.")] = AUTO
    clients_per_round: Annotated[Count | Auto, _flag(WHO, "Clients drawn in a round.")] = AUTO
    num_malicious: Annotated[
        Annotated[int, Field(ge=0, lt=2**31)] | Auto,
        _flag(WHO, "Malicious clients, the last ones; 0 measures an attack nobody makes."),
    ] = AUTO
    malicious_ids: Annotated[str, _flag(WHO, "Malicious clients by number, such as 3,7 (instead of a count).")] = ""
    malicious_per_round: Annotated[
        Count | Auto, _flag(WHO, "Malicious clients in every round; by default as many as are drawn.")
    ] = AUTO
    attack_share: Annotated[
        float,
        _flag(WHO, "Share of rounds, evenly spread, that malicious clients attack; 1 is all of them.", gt=0, le=1),
    ] = 1.0
    curious_clients: Annotated[
        str, _flag(WHO, "Clients that a curious server reads, such as 0,3, or all; by default the first of a round.")
    ] = AUTO
    curious_every: Annotated[
        Count | Auto, _flag(WHO, "Rounds that it reads: 1, 1 + N, 1 + 2 N, ...; by default the first alone.")
    ] = AUTO
    min_replies: Annotated[
        Count | Auto,
        _flag(WHO, "Usable replies below which a run stops; by default half a round, or what the rule needs."),
    ] = AUTO
    rounds: Annotated[
        Annotated[int, Field(ge=0, lt=2**31)] | Auto,
        _flag(HOW, "Rounds of training; 0 tests the model of --start-from."),
    ] = AUTO
    local_epochs: Annotated[Positive | Auto, _flag(HOW, "Passes over its data that a client makes in a round.")] = AUTO
    continue_epochs: Annotated[
        bool, _flag(HOW, "Rounds of less than an epoch go on in it where the one before ended, not at random.")
    ] = False
    batch_size: Annotated[Count | Auto, _flag(HOW, "Samples in a local batch.")] = AUTO
    learning_rate: Annotated[Positive | Auto, _flag(HOW, "Learning rate of the local optimiser.")] = AUTO
    optimizer: Annotated[str, _flag(HOW, "Local optimiser, such as 'sgd(momentum=0.9)'.")] = AUTO
    seed: Annotated[int, _flag(HOW, "Everything random follows from it.", ge=0, lt=2**63)] = 0
    engine: Annotated[str, _flag(WHERE, "inline (one process), simulation (Flower's), deployment.")] = "inline"
    device: Annotated[str, _flag(WHERE, "cpu, cuda, cuda:1, mps; auto takes a GPU where there is one.")] = AUTO
    data_dir: Annotated[str, _flag(WHERE, "Folder with data: NAME.npz, or torchvision's downloads.")] = ""
    output: Annotated[str, _flag(WHERE, "Folder for the records; by default a new one below runs/.")] = ""
    record: Annotated[str, _flag(WHERE, "Folder that keeps what a curious server reads, for thornbed invert.")] = ""
    resume: Annotated[bool, _flag(WHERE, "Go on from the checkpoint in the output folder.")] = False
    logger: Annotated[str, _flag(WHERE, "Also show rounds in tensorboard, wandb, both (+), or none.")] = NONE
    superlink: Annotated[str, _flag(WHERE, "HOST:PORT of a running SuperLink (deployment).")] = ""
    root_certificates: Annotated[str, _flag(WHERE, "CA certificate of the SuperLink; without it no TLS.")] = ""
    node_timeout: Annotated[
        Positive | Auto, _flag(WHERE, "Seconds to wait for the clients to connect; auto: 60 for machines, else 600.")
    ] = AUTO
    reply_timeout: Annotated[float, _flag(WHERE, "Seconds to wait for the replies of a round.", gt=0)] = 3600.0
    channel_timeout: Annotated[
        float, _flag(WHERE, "Seconds that an attacker waits for its accomplices' updates (deployment).", gt=0)
    ] = 60.0

    origin: Annotated[str, _flag("", "Who started the run, as JSON; thornbed fills it in, and it is no flag.")] = ""

    @field_validator("local_epochs", "learning_rate", "node_timeout", "reply_timeout", "channel_timeout", mode="after")
    @classmethod
    def _finite(cls, value: float | str) -> float | str:
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError("takes a finite number")
        return value

    @field_validator("*", mode="after")
    @classmethod
    def _printable(cls, value: Any) -> Any:
        if isinstance(value, str) and (strange := refusal_of_text(value)):
            raise ValueError(strange)
        return value

    @field_validator("origin", mode="after")
    @classmethod
    def _object(cls, value: str) -> str:
        if value and not isinstance(json.loads(value), dict):
            raise ValueError("takes a JSON object")
        return value

    @field_validator("malicious_ids", mode="after")
    @classmethod
    def _numbers(cls, value: str) -> str:
        parts = [part.strip() for part in value.split(",")] if value.strip() else []
        if not all(part.isdecimal() for part in parts):
            raise ValueError("takes client numbers joined by commas, such as 3,7")
        numbers = sorted(int(part) for part in parts)
        if len(set(numbers)) < len(numbers):
            raise ValueError("takes every client number once")
        return ",".join(map(str, numbers))

    @field_validator("curious_clients", mode="after")
    @classmethod
    def _read(cls, value: str) -> str:
        return value if value in (AUTO, "all") else cls._numbers(value)

    @property
    def named_malicious(self) -> tuple[int, ...]:
        """The malicious clients that were named one by one."""
        return tuple(int(part) for part in self.malicious_ids.split(",") if part)

    def to_run_config(self) -> dict[str, bool | int | float | str]:
        """Return the settings under Flower's run-config keys (words joined by dashes)."""
        return {name.replace("_", "-"): value for name, value in self.model_dump().items()}

    def command(self) -> str:
        """Return the command that repeats this run (into a folder of the user's choice)."""
        defaults = Settings()
        words = ["thornbed", "run"]
        for name, value in self.model_dump().items():
            if value != getattr(defaults, name) and name not in ("output", "record", "resume", "origin"):
                flag = f"--{name.replace('_', '-')}"
                words += [flag] if value is True else [flag, str(value)]
        return shlex.join(words)


class Resolved(Settings):
    """Settings in which nothing is left to a task's default, made by `flower_apps.resolving.resolve`."""

    num_clients: int
    clients_per_round: int
    num_malicious: int
    min_replies: int
    rounds: int
    local_epochs: float
    batch_size: int
    learning_rate: float

    @property
    def malicious(self) -> frozenset[int]:
        """The malicious clients: those named, or else the last `num_malicious`."""
        if self.malicious_ids:
            return frozenset(self.named_malicious)
        return frozenset(range(self.num_clients - self.num_malicious, self.num_clients))

    @property
    def rounds_read(self) -> range:
        """The rounds of which a curious server reads replies: the first alone, or 1, 1 + N, 1 + 2 N, ..."""
        return range(1, 2) if self.curious_every == AUTO else range(1, self.rounds + 1, self.curious_every)

    def clients_read(self, clients: Iterable[int]) -> list[int]:
        """Return those whose replies are read, of the clients that send one in such a round, ascending."""
        there, wanted = sorted(clients), self.curious_clients
        if wanted == "all":
            return there
        if wanted == AUTO:
            return there[:1]
        numbers = {int(client) for client in wanted.split(",")}
        return [client for client in there if client in numbers]

    @property
    def watches(self) -> bool:
        """Whether the server is curious: it inverts updates, or records them."""
        return self.curious != NONE or bool(self.record)


def settings_from(values: Mapping[str, Any]) -> Settings:
    """Make settings of keys with dashes or underscores; raises BadSettings with one sentence a fault."""
    known = {name.replace("-", "_"): value for name, value in values.items()}
    try:
        return Settings(**known)
    except ValidationError as error:
        raise BadSettings("; ".join(dict.fromkeys(_sentence(fault, known) for fault in error.errors()))) from None


def _sentence(fault: Any, values: Mapping[str, Any]) -> str:
    name = str(fault["loc"][0])
    flag, field = f"--{name.replace('_', '-')}", Settings.model_fields.get(name)
    if field is None:
        flags = ", ".join(f"--{each.replace('_', '-')}" for each in Settings.model_fields if each != "origin")
        return f"there is no setting {flag}; there are {flags}"
    if fault["type"] == "value_error":
        return f"{flag} {fault['ctx']['error']}, not {values[name]!r}"
    words = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}[kind_of(name)]
    bounds = dict(re.findall(r"\b(ge|gt|le|lt)=(\d+)", f"{field.annotation} {field.metadata}"))
    spoken = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    if not isinstance(values[name], int) or values[name] < int(bounds.get("lt", 0)):
        bounds.pop("lt", None)  # it is far away, and spoken of where it was passed
    said = [f"{spoken[key]} {bounds[key]}" for key in spoken if key in bounds]
    limit = f" ({' and '.join(said)})" if said else ""
    return f"{flag} takes {words}{limit}, not {values[name]!r}"


def refusal_of_text(text: str) -> str:
    """Return why no setting holds a text, to go on after its name; empty where one can: any letter, sign and space."""
    kinds = {unicodedata.category(sign) for sign in text}
    if kinds & {"Cc", "Zl", "Zp"}:
        return "takes text of one line, without control characters"
    return "takes text in UTF-8" if "Cs" in kinds else ""


def kind_of(name: str) -> type:
    """Return what a setting is besides "auto": int, float, bool or str."""
    annotation = str(Settings.model_fields[name].annotation)
    return next(kind for kind in (bool, int, float, str) if re.search(rf"\b{kind.__name__}\b", annotation))
