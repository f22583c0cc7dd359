"""Tensors on disk, as safetensors: a file holds tensors and text, nothing that could run, and is written whole."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors under their names, with texts, whole or not at all."""
    part = path.with_suffix(path.suffix + ".part")
    # Copies, since two names of one memory (tied weights) are no two tensors to the format.
    copies = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    save_file(copies, part, dict(metadata or {}))
    part.chmod(0o666 & ~_umask())  # safetensors makes files that only their owner can read
    part.replace(path)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
