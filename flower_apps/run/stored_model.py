"""The model that a run begins with, where --start-from names a file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from thornbed.flower_apps.records.folder import Folder
from thornbed.flower_apps.settings import BadSettings, Resolved
from thornbed.protocol.tensor_files import load_tensors, misfit

START = "start_from_sha256"  # in config.json


def stored_model(
    settings: Resolved, own: Mapping[str, Tensor], prefix: str = ""
) -> tuple[dict[str, Tensor], Mapping[str, str]]:
    """Return the tensors of the file that --start-from names, of these names and shapes, and what it says of them.

    prefix : of the names that count in the file. Raises BadSettings as `starting_model` does.
    """
    path = Path(settings.start_from).expanduser()
    try:
        stored, said = load_tensors(path)
    except FileNotFoundError:
        raise BadSettings(f"--start-from {path} is not there; name the model.safetensors of a run") from None
    except ValueError as error:
        raise BadSettings(f"--start-from {path} is no safetensors file, or damaged ({error})") from None
    tensors = {name: tensor for name, tensor in stored.items() if name.startswith(prefix)}
    if (fault := misfit(tensors, own)) is not None:
        raise BadSettings(f"--start-from {path} does not fit --model {settings.model}: {fault}")
    tensors = {name: tensors[name].to(tensor.dtype) for name, tensor in own.items()}
    if odd := [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]:
        raise BadSettings(f"--start-from {path} holds values that are not finite: in {odd[0]} ({len(odd)} such)")
    return tensors, said


def digest_of(start_from: str) -> str:
    """Return the SHA-256 of the file that --start-from names."""
    with Path(start_from).expanduser().open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_same_start(settings: Resolved, output: Path) -> None:
    """Refuse to go on where --start-from is another file than the run in `output` began with."""
    if Folder(output).fact(START) not in (None, digest_of(settings.start_from)):
        raise BadSettings(
            f"--start-from {settings.start_from} is another file than when the run in {output} began, which still "
            "needs it; a run goes on with what it began with"
        )
