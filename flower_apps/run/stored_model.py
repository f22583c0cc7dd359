"""The model that a run begins with, where --start-from names a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from thornbed.flower_apps.settings import BadSettings, Resolved
from thornbed.protocol.tensor_files import load_tensors, misfit


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
