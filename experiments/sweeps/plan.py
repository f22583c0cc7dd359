"""A sweep file becomes cells: every combination of its lists is one run, in a folder named by a hash of its settings.

The keys are those of `thornbed run`, so one value is fixed and a list is swept. Tables hold what is no setting: `about`
(title, source, data, minutes, figure), `scale.NAME` (settings that replace those above them: a small and a full size),
`block` (settings, with scales of their own, for one part of the cells: every block is a product by itself, and one with
`only` is left out at other scales), and `published` (numbers of a paper, to be put beside ours). A file of figures that
need no cells, without any setting, has none.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from thornbed.experiments.figures import Figure
from thornbed.experiments.sweeps.block import SweepBlock
from thornbed.flower_apps.metrics import METRICS
from thornbed.flower_apps.records.folder import WHEREABOUTS
from thornbed.flower_apps.resolving import resolve
from thornbed.flower_apps.settings import SPECS, BadSettings, Resolved, Settings, plugins, settings_from


class About(BaseModel):
    """What a sweep file says of itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str = ""
    source: str = ""
    data: str = ""
    minutes: Mapping[str, float] = {}
    figure: str = ""


def _metric(name: str) -> str:
    if name not in METRICS:
        raise PydanticCustomError("metric", "Input should be {names}", {"names": ", ".join(map(repr, METRICS))})
    return name


class Published(BaseModel):
    """One number of a paper: the cells it belongs to, the metric, the number, and where it stands."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    where: Mapping[str, Any]
    metric: Annotated[str, AfterValidator(_metric)]
    value: Annotated[float, Field(allow_inf_nan=False)]
    source: str = ""


@dataclass(frozen=True, eq=False)
class Cell:
    """One run of a sweep: its settings, the hash that names its folder, and what is special about it."""

    settings: Resolved
    key: str
    varied: Mapping[str, Any]

    @property
    def title(self) -> str:
        """The swept settings of this cell, in a few words."""
        return ", ".join(f"{name} {value}" if name == "seed" else str(value) for name, value in self.varied.items())


@dataclass(frozen=True)
class Plan:
    """What a sweep file says, and its cells in the order of the product, the last list running fastest."""

    path: Path
    cells: Sequence[Cell]
    swept: tuple[str, ...]
    about: About
    published: Sequence[Published] = field(default=())
    figures: Mapping[str, Figure] = field(default_factory=dict)


def read_plan(path: Path, *, scale: str | None = None, overrides: Mapping[str, Any] | None = None) -> Plan:
    """Read a sweep file; `overrides` replace its values. Raises BadSettings with one sentence."""
    content = _toml(path)
    about, published, blocks = _tables(path, content)
    top = SweepBlock.of(path, content)
    if top.only is not None:
        raise BadSettings(f"{path}: only is for a block, not for the whole file")
    parts = [SweepBlock.of(path, block) for block in blocks]
    if scale is not None and not any(scale in part.scales for part in (top, *parts)):
        scales = dict.fromkeys(name for part in (top, *parts) for name in part.scales)
        raise BadSettings(f"{path} has no scale {scale!r}; it has {', '.join(scales) or 'none'}")
    figures = _figures(path, about.figure)
    parts = parts or [SweepBlock({}, {})]

    def products_at(scale: str | None, chosen: Sequence[SweepBlock]) -> list[dict[str, Any]]:
        return [{**top.at(scale), **part.at(scale), **(overrides or {})} for part in chosen]

    products = products_at(scale, [part for part in parts if part.has_cells(scale)])
    if figures and not any(figure.needs_cells for figure in figures.values()) and not any((top, *parts)):
        if "seed" in (overrides or {}):
            raise BadSettings(f"{path} has no cells, so there is nothing that --seeds could seed")
        products = []
    # What is special about a cell is what differs between cells: a list, or a value that differs between blocks.
    names = dict.fromkeys(name for values in products for name in values)
    swept = tuple(
        name
        for name in names
        if any(isinstance(values.get(name), list) for values in products)
        or any(values.get(name) != products[0].get(name) for values in products)
    )
    cells: dict[str, Cell] = {}
    for values in products:
        _add_cells(path, values, swept, cells)
    _check_names(path, published)
    lacking = [each for each in published if not any(matches(each, cell.settings) for cell in cells.values())]
    # A number of a cell that only another scale, or a block without cells at this one, has is none of this table's.
    others = [name for part in (top, *parts) for name in part.scales] if scale else []
    for other in dict.fromkeys((scale, *others)) if lacking else ():
        for values in products_at(other, parts):
            left_out: dict[str, Cell] = {}
            _add_cells(path, values, swept, left_out)
            gone = [each for each in lacking if any(matches(each, cell.settings) for cell in left_out.values())]
            published = [each for each in published if each not in gone]
    plan = Plan(path, list(cells.values()), swept, about, published, figures)
    _check_published(plan)
    for name, figure in figures.items():
        try:
            figure.check([cell.settings for cell in plan.cells])
        except ValueError as error:
            raise BadSettings(f"{path}: figure {name}: {error}") from None
    return plan


def _figures(path: Path, text: str) -> dict[str, Figure]:
    """Return the figures of a file by their names, joined by `+`; raises BadSettings."""
    try:
        specs = plugins.parse_sum(text) if text else []
        figures: dict[str, Figure] = {spec.name: plugins.load("figure", spec) for spec in specs}
    except ValueError as error:
        raise BadSettings(f"{path}: figure: {error}") from None
    if len(figures) < len(specs):
        raise BadSettings(f"{path}: figure: {text} names a figure twice, and one would overwrite the other")
    return figures


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"it is no TOML: {error}"
        raise BadSettings(
            f"{path} cannot be read ({reason}); it takes lines such as strategy = ['fedavg', 'krum']"
        ) from None


def _tables(path: Path, content: dict[str, Any]) -> tuple[About, list[Published], list[dict[str, Any]]]:
    """Take the tables out of the content, which then holds settings and their scales alone."""
    blocks = content.pop("block", [])
    if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
        raise BadSettings(f"{path}: block takes tables of settings, [[block]]")
    published = content.pop("published", [])
    try:
        about = About.model_validate(content.pop("about", {}))
        published = published if isinstance(published, list) else [published]
        numbers = [Published.model_validate(number) for number in published]
    except ValidationError as error:
        fault = error.errors()[0]
        raise BadSettings(
            f"{path}: {fault['msg']} at {'.'.join(map(str, fault['loc'])) or 'the table'} of {error.title}"
        ) from None
    return about, numbers, blocks


def _add_cells(path: Path, values: Mapping[str, Any], swept: tuple[str, ...], known: dict[str, Cell]) -> None:
    """Add the cells of one product to those that are known, by their keys."""
    lists = {name: value for name, value in values.items() if isinstance(value, list)}
    for combination in itertools.product(*lists.values()):
        chosen = dict(zip(lists, combination, strict=True))
        varied = {name: chosen.get(name, values.get(name)) for name in swept if name in values}
        try:
            settings = resolve(settings_from({**values, **chosen}))
        except ValueError as error:
            raise BadSettings(f"{path}: {_named(varied)}{error}") from None
        if settings.engine == "deployment":
            raise BadSettings(f"{path}: a sweep runs inline or in simulation; deployment keeps its records elsewhere")
        cell = Cell(settings, key_of(settings), varied)
        if (other := known.get(cell.key)) is not None:
            raise BadSettings(f"{path}: two cells are the same run, ({other.title}) and ({cell.title}); drop one")
        known[cell.key] = cell


def _named(varied: Mapping[str, Any]) -> str:
    return f"the cell ({', '.join(f'{name} = {value!r}' for name, value in varied.items())}): " if varied else ""


def key_of(settings: Resolved) -> str:
    """Return the hash that names a cell's folder: twelve digits of the SHA-256 of all settings that matter."""
    # What is as it always was is left out, so that a setting which is new leaves the names of older cells as they are.
    default = Settings()
    content = {
        name: value
        for name, value in settings.model_dump().items()
        if name not in WHEREABOUTS and value != getattr(default, name)
    }
    for name in SPECS:  # in whatever order options are written
        if name in content:
            content[name] = [
                [spec.name, sorted(map(str, spec.options.items()))] for spec in plugins.parse_sum(content[name])
            ]
    if settings.start_from:  # relative or not: a cell's own folder has it whole
        content["start_from"] = str(Path(settings.start_from).expanduser().resolve())
    content["malicious"] = sorted(settings.malicious)  # named or counted
    for name in ("malicious_ids", "num_malicious"):
        content.pop(name, None)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def matches(published: Published, settings: Settings) -> bool:
    """Tell whether a published number belongs to a run of these settings.

    A spec is met by one of the same names that has the options it names, whatever other options that has: the task
    `cifar10` by `cifar10(num_train=20000)`.
    """
    return all(
        _met(str(value), getattr(settings, key)) if key in SPECS else getattr(settings, key) == value
        for key, value in ((name.replace("-", "_"), value) for name, value in published.where.items())
    )


def _met(wanted: str, spec: str) -> bool:
    ours, theirs = plugins.parse_sum(spec), plugins.parse_sum(wanted)
    return [each.name for each in ours] == [each.name for each in theirs] and all(
        other.options.items() <= one.options.items() for one, other in zip(ours, theirs, strict=True)
    )


def _check_names(path: Path, published: Sequence[Published]) -> None:
    for number in published:
        for name in number.where:
            if name.replace("-", "_") not in Settings.model_fields:
                raise _unplaced(path, number, f"there is no setting {name}")


def _check_published(plan: Plan) -> None:
    """Refuse a number that belongs to no cell: a misspelt name would otherwise leave a gap in the table."""
    for number in plan.published:
        cells = [cell for cell in plan.cells if matches(number, cell.settings)]
        if len({key_of(cell.settings.model_copy(update={"seed": 0})) for cell in cells}) != 1:
            raise _unplaced(
                plan.path, number, "no cell is like that" if not cells else "its cells differ in more than their seed"
            )


def _unplaced(path: Path, number: Published, reason: str) -> BadSettings:
    return BadSettings(f"{path}: published number {number.value:g} for {dict(number.where)}: {reason}")
