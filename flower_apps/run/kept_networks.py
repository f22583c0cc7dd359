"""The networks that parties of vertical learning keep in a folder after a round: for a run that goes on, or is over."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from thornbed.flower_apps.settings import Resolved
from thornbed.protocol.tensor_files import load_tensors, save_tensors

KEPT = 2  # networks: that of the round that the server has kept too, and the one before


def kept_folder(settings: Resolved, node_config: Mapping[str, Any]) -> Path | None:
    """Return where clients keep their networks after a round; in deployment `state` in `--node-config`, or nowhere."""
    if settings.engine != "deployment":
        return Path(settings.output).expanduser() / "parties" if settings.output else None
    text = str(node_config.get("state", ""))
    return Path(text).expanduser() if text else None


def keep(folder: Path, client: int, server_round: int, state: Mapping[str, Tensor]) -> None:
    """Keep a client's tensors after a round, with those that it kept before, and forget older ones.

    Those of later rounds go, too: they are of another run, or of a round that is made again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    save_tensors(_path(folder, client, server_round), state)
    rounds = _rounds(folder, client)
    remaining = sorted(each for each in rounds if each <= server_round)[-KEPT:]
    for each in rounds - set(remaining):
        _path(folder, client, each).unlink(missing_ok=True)


def kept_state(folder: Path, client: int, server_round: int) -> dict[str, Tensor] | None:
    """Return what a client kept after a round; None where it did not."""
    try:
        return load_tensors(_path(folder, client, server_round))[0]
    except FileNotFoundError:
        return None


def last_kept(folder: Path, client: int, before: int | None = None) -> int | None:
    """Return the last round, of those before one where it is given, after which a client kept its network, if any."""
    return max((each for each in _rounds(folder, client) if before is None or each < before), default=None)


def _rounds(folder: Path, client: int) -> set[int]:
    told = (path.stem.removeprefix(f"{client}-round-") for path in folder.glob(f"{client}-round-*.safetensors"))
    return {int(each) for each in told if each.isdecimal()}


def _path(folder: Path, client: int, server_round: int) -> Path:
    return folder / f"{client}-round-{server_round}.safetensors"
