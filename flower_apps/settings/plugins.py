"""Names become objects: the folder a file lies in is the signature it has, and the flag that names it.

`available("strategy")` lists names without importing anything. `load("strategy", "krum(num_byzantine=4)")` parses the
spec with `ast` (a name, keyword literals, nothing else), imports that one module, checks the options against the
signature, and fails with what it would have taken.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import inspect
import re
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, is_dataclass
from functools import lru_cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import TypeAdapter, ValidationError

NOTHING = "none"  # no attack, no defense, no logger
ROOT = Path(__file__).resolve().parents[2]

# Where a name of a kind is looked for, in order: a rule comes before a strategy of the same name.
FOLDERS: Mapping[str, tuple[str, ...]] = {
    "task": ("tasks", "tasks/multitask"),
    "model": ("tasks/models",),
    "partition": ("tasks/partitions",),
    "blocks": ("tasks/blocks",),
    "bottom": ("tasks/bottoms",),
    "strategy": ("defenses/aggregation", "strategies"),
    "attack": (
        "attacks/data",
        "attacks/training",
        "attacks/group",
        "attacks/update",
        "attacks/multitask",
        "attacks/inference",
        "attacks/vertical",
    ),
    "curious": ("attacks/inversion",),
    "defense": (
        "defenses/perturbation",
        "defenses/hardening",
        "defenses/trimming",
        "defenses/relations",
        "defenses/vertical",
        "defenses/purification",
        "defenses/inference",
    ),
    "optimizer": ("clients/optimizers",),
    "engine": ("flower_apps/engines",),
    "logger": ("flower_apps/loggers",),
    "figure": ("experiments/figures",),
}
# What a plug-in is, where its flag is called otherwise.
SPOKEN: Mapping[str, str] = {
    "curious": "inversion",
    "blocks": "way of dividing features",
    "bottom": "bottom model",
}


class BadSpec(ValueError):
    """A spec that names nothing here, or options that the named thing does not take."""


@dataclass(frozen=True)
class Spec:
    """A name and its options, as written: `krum(num_byzantine=4)`."""

    name: str
    options: Mapping[str, Any]

    def __str__(self) -> str:
        if not self.options:
            return self.name
        return f"{self.name}({', '.join(f'{key}={value!r}' for key, value in self.options.items())})"


@dataclass(frozen=True)
class Option:
    """One option of a plug-in: its name, its type and default as Python writes them (None: it has to be given)."""

    name: str
    type: str
    default: str | None


@dataclass(frozen=True)
class Plugin:
    """What is known of a plug-in: where it lies, its first sentence and its source, what it takes.

    `needs` is what the attacker must know, of an attack.
    """

    kind: str
    name: str
    folder: str
    summary: str
    source: str
    options: tuple[Option, ...]
    needs: tuple[str, ...] = ()


def parse(text: str) -> Spec:
    """Read one spec: a name, or a call of it with keyword arguments that are literals, or words without quotes."""
    specs = _parsed(text)
    if len(specs) != 1:
        raise BadSpec(f"{text!r} names {len(specs)} things where one is taken")
    return specs[0]


def parse_sum(text: str) -> tuple[Spec, ...]:
    """Read specs joined by `+`, in order: `edge_case(target=9) + scaling(factor=5)`; of "none" there are none."""
    return () if text == NOTHING else _parsed(text)


@lru_cache(maxsize=1024)  # a run is made of a dozen texts, which every message brings along
def _parsed(text: str) -> tuple[Spec, ...]:
    try:
        return _specs(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        if isinstance(error, BadSpec):
            raise
        raise BadSpec(f"{text!r} is no spec; write a name, or name(option=value, ...) with plain values") from error


def _specs(node: ast.expr) -> tuple[Spec, ...]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return (*_specs(node.left), *_specs(node.right))
    if isinstance(node, ast.Name):
        return (Spec(node.id, {}),)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        if node.args or any(keyword.arg is None for keyword in node.keywords):
            raise BadSpec(f"options of {node.func.id} are written as option=value")
        names = [str(keyword.arg) for keyword in node.keywords]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise BadSpec(f"{node.func.id} is given {twice[0]} twice")
        return (Spec(node.func.id, MappingProxyType({str(kw.arg): _value(kw.value) for kw in node.keywords})),)
    raise ValueError("neither a name nor a call")


def _value(node: ast.expr) -> Any:
    """Return a literal; a word is taken as a text, because quotes within quotes are what shells make hard."""
    return node.id if isinstance(node, ast.Name) else ast.literal_eval(node)


def available(kind: str) -> dict[str, str]:
    """Return the names of a kind with the folder each lies in, without importing anything.

    Every public module of a kind's folders that defines something of its own name is a plug-in.
    """
    return dict(_available(ROOT, kind))


@lru_cache
def _available(root: Path, kind: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for folder in FOLDERS[kind]:
        for path in sorted((root / folder).glob("[!_]*.py")):
            if path.stem not in found and _defines(path):
                found[path.stem] = folder
    return found


def _defines(path: Path) -> bool:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return any(
        isinstance(node, ast.FunctionDef | ast.ClassDef) and _same_name(node.name, path.stem) for node in tree.body
    )


def _same_name(attribute: str, module: str) -> bool:
    return attribute == module or attribute.lower() == module.replace("_", "")


def find(kind: str, name: str) -> Callable[..., Any]:
    """Import the one module a name stands for and return its function or class."""
    names = available(kind)
    check_name(kind, name)
    module = importlib.import_module(f"thornbed.{names[name].replace('/', '.')}.{name}")
    attribute = next(key for key in vars(module) if _same_name(key, name) and callable(getattr(module, key)))
    return typing.cast(Callable[..., Any], getattr(module, attribute))


def check_name(kind: str, name: str) -> None:
    """Raise BadSpec, with what comes closest, where a kind has no plug-in of that name; imports nothing."""
    names = available(kind)
    if name not in names:
        close = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {close[0]}? There are: " if close else "there are: "
        raise BadSpec(f"there is no {SPOKEN.get(kind, kind)} called {name}; {hint}{', '.join(sorted(names))}")


def load(kind: str, text: str | Spec, base: Path | None = None) -> Any:
    """Return what a spec stands for: a dataclass made with its options, or a function with its options bound.

    Options annotated `Path` are taken relative to `base`, the folder with the data.
    """
    spec = parse(text) if isinstance(text, str) else text
    plugin = find(kind, spec.name)
    if missing := sorted(getattr(plugin, "__abstractmethods__", ())):
        file = f"{plugin.__module__.removeprefix('thornbed.').replace('.', '/')}.py"
        raise BadSpec(f"{file} lacks what its base class leaves to it: {', '.join(missing)}")
    options = _checked(spec, plugin, base)
    return plugin(**options) if is_dataclass(plugin) else partial(plugin, **options)


def describe(kind: str, name: str) -> Plugin:
    """Import a plug-in and say what it is."""
    plugin = find(kind, name)
    module = inspect.getmodule(plugin)
    text = inspect.cleandoc((module.__doc__ if module else None) or "")
    source = re.search(r"^(?:Paper|Source): (.+?)(?:\n\s*\n|\Z)", text, flags=re.MULTILINE | re.DOTALL)
    hints = _hints(plugin)
    options = tuple(
        Option(
            parameter.name,
            _annotation(parameter.annotation, hints.get(parameter.name)),
            None if parameter.default is parameter.empty else _shown(parameter.default),
        )
        for parameter in _parameters(plugin).values()
    )
    return Plugin(
        kind,
        name,
        available(kind)[name],
        text.split("\n")[0],
        " ".join(source[1].split()) if source else "",
        options,
        tuple(sorted(getattr(module, "NEEDS", ()))),
    )


def _parameters(plugin: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return a plug-in's options: its keyword-only parameters; what the house gives is positional."""
    parameters = inspect.signature(plugin).parameters
    return {name: p for name, p in parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}


def _checked(spec: Spec, plugin: Callable[..., Any], base: Path | None) -> dict[str, Any]:
    parameters = _parameters(plugin)
    hints = _hints(plugin)
    shown = {name: _annotation(parameter.annotation, hints.get(name)) for name, parameter in parameters.items()}
    taken = ", ".join(f"{name}: {annotation}" for name, annotation in shown.items()) or "none"
    options: dict[str, Any] = {}
    for name, value in spec.options.items():
        if name not in parameters:
            raise BadSpec(f"{spec.name} has no option {name}; it takes {taken}")
        hint = hints.get(name, Any)
        try:
            if _is_path(hint) and isinstance(value, str) and "\0" not in value:
                options[name] = Path(value)
            else:
                options[name] = TypeAdapter(hint).validate_python(value, strict=True)
        except ValidationError:
            raise BadSpec(f"{spec.name} takes {name}: {shown[name]}, not {value!r}") from None
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in options:
            raise BadSpec(f"{spec.name} needs the option {name}; it takes {taken}")
        value = options.get(name, parameter.default)
        if isinstance(value, Path) and base is not None and not value.is_absolute():
            options[name] = base / value
    return options


def _is_path(hint: Any) -> bool:
    return hint is Path or Path in typing.get_args(hint)


def _hints(plugin: Callable[..., Any]) -> dict[str, Any]:
    if is_dataclass(plugin) or not isinstance(plugin, type):
        # Of a dataclass, what each base annotates is read in that base's own module.
        return typing.get_type_hints(plugin)
    return typing.get_type_hints(inspect.getattr_static(plugin, "__init__"))


def _annotation(annotation: Any, hint: Any) -> str:
    """Return a type as it is written, and in place of a name for several values or types, which says nothing, these."""
    if typing.get_origin(hint) is typing.Literal and (not isinstance(annotation, str) or annotation.isidentifier()):
        return f"Literal[{', '.join(map(repr, typing.get_args(hint)))}]"
    if isinstance(annotation, str) and annotation.isidentifier() and typing.get_args(hint):
        return str(hint)
    if isinstance(annotation, str):
        return annotation
    return getattr(annotation, "__name__", str(annotation)) if not typing.get_args(annotation) else str(annotation)


def _shown(default: Any) -> str:
    return repr(str(default)) if isinstance(default, Path) else repr(default)
