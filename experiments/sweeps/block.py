"""A part of a sweep file: settings, what each scale replaces in them, and at which scales it counts at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thornbed.flower_apps.settings import BadSettings, Settings

# A sweep chooses the folders; where the data lie is of the machine, and said on the command line or fixed.
NOT_SWEPT = ("output", "record", "resume", "data_dir", "superlink", "root_certificates")
FILLED_IN = ("output", "record", "resume", "origin")


@dataclass(frozen=True)
class SweepBlock:
    """Settings of a part of the cells, what each scale replaces in them, and the scales it is for, None: all."""

    values: Mapping[str, Any]
    scales: Mapping[str, Mapping[str, Any]]
    only: Sequence[str] | None = None

    @classmethod
    def of(cls, path: Path, content: Mapping[str, Any]) -> SweepBlock:
        """Check a table of settings with its table `scale`; raises BadSettings."""
        scales = content.get("scale", {})
        if not isinstance(scales, dict) or not all(isinstance(values, dict) for values in scales.values()):
            raise BadSettings(f"{path}: scale takes tables of settings, [scale.cpu]")
        only = content.get("only")
        if only is not None and not (isinstance(only, list) and only and all(isinstance(name, str) for name in only)):
            raise BadSettings(f'{path}: only takes the scales at which a block has cells, ["paper"]')
        values = {name: value for name, value in content.items() if name not in ("scale", "only")}
        checked = {name: _settings(path, table) for name, table in scales.items()}
        return cls(_settings(path, values), checked, only)

    def __bool__(self) -> bool:
        """Tell whether it has any setting, at whatever scale."""
        return bool(self.values) or any(self.scales.values())

    def has_cells(self, scale: str | None) -> bool:
        """Tell whether it has cells at a scale."""
        return self.only is None or scale in self.only

    def at(self, scale: str | None) -> dict[str, Any]:
        """Return the settings at a scale, which a block need not have."""
        return {**self.values, **(self.scales.get(scale, {}) if scale is not None else {})}


def _settings(path: Path, table: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table's settings under their own names; raises BadSettings for one that is none."""
    values = {name.replace("-", "_"): value for name, value in table.items()}
    if len(values) < len(table):
        raise BadSettings(f"{path}: a key is there twice, with a dash and with an underscore")
    for name, value in values.items():
        if name not in Settings.model_fields or name in FILLED_IN:
            names = ", ".join(each for each in Settings.model_fields if each not in FILLED_IN)
            raise BadSettings(
                f"{path}: there is no key {name}; there are {names}, and tables about, scale, block, published"
            )
        if isinstance(value, list) and not value:
            raise BadSettings(f"{path}: {name} is an empty list; give it a value, or several")
        if isinstance(value, list) and name in NOT_SWEPT:
            raise BadSettings(f"{path}: {name} takes one value, not a list")
    return values
