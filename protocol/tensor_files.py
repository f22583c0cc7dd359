"""Tensors on disk, as safetensors: a file holds tensors and text, nothing that could run, and is written whole.

A file says the SHA-256 of its tensors and texts. That proves that nothing has changed by accident: a bit, a tensor that
is gone, a text that was edited. Whoever means to can make a file with a digest of its own.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save, save_file
from torch import Tensor

from thornbed.protocol.whole_files import whole

DIGEST = "sha256"  # among the texts of a file

SMALL = 2**20
"""Bytes of tensors up to which a file is made in memory: in a third of the time, and with twice the memory."""


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors under their names, with texts and the digest of all, whole or not at all."""
    # Copies, since two names of one memory (tied weights) are no two tensors to the format.
    copies = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    texts = dict(metadata or {})
    texts[DIGEST] = _digest(copies, texts)
    with whole(path) as part:
        if sum(copy.nbytes for copy in copies.values()) <= SMALL:
            part.write_bytes(save(copies, texts))
        else:
            _save_large(copies, part, texts)
        if len(texts) > 1:
            _sort_texts(part)
        part.chmod(0o666 & ~_umask())  # safetensors makes files that only their owner can read


def load_tensors(path: Path, *, proven: bool = False) -> tuple[dict[str, Tensor], Mapping[str, str]]:
    """Return the tensors of a file by their names, and its texts but the digest.

    proven : whether a file without a digest is refused; others than this project make such files.
    Raises FileNotFoundError, and ValueError with the reason for a file that is no such file or damaged.
    """
    try:
        with safe_open(path, framework="pt") as stored:
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (not a dict)
            texts = dict(stored.metadata() or {})
    except FileNotFoundError:
        raise
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(str(error.strerror if isinstance(error, OSError) and error.strerror else error)) from None
    told = texts.pop(DIGEST, None)
    if told is None and proven:
        raise ValueError("it has no digest of what was written")
    if told not in (None, _digest(tensors, texts)):
        raise ValueError("it is not as it was written: its SHA-256 is another")
    return tensors, texts


def found_once(path: Path, find: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the tensors of a file. Whichever process comes first finds and writes them, and the others wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.stem}.lock")):
        if not path.exists():
            save_tensors(path, find())
    return load_tensors(path)[0]


def misfit(tensors: Mapping[str, Tensor], model: Mapping[str, Tensor]) -> str | None:
    """Return in what tensors differ from those of a model by name or shape, the first of them; None where they do not.

    The text goes on after a colon, and calls the tensors it.
    """
    if missing := sorted(model.keys() - tensors.keys()):
        return f"it lacks {missing[0]} ({len(missing)} such)"
    if unknown := sorted(tensors.keys() - model.keys()):
        return f"it holds {unknown[0]}, which the model has not ({len(unknown)} such)"
    for name, tensor in model.items():
        if tensors[name].shape != tensor.shape:
            return f"{name} is {tuple(tensors[name].shape)} instead of {tuple(tensor.shape)}"
    return None


def _digest(tensors: Mapping[str, Tensor], texts: Mapping[str, str]) -> str:
    """Return the SHA-256 of tensors, by name, type, shape and bytes, and of texts; the order is of no account."""
    content = hashlib.sha256(json.dumps(sorted(texts.items())).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        content.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        content.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return content.hexdigest()


def _save_large(tensors: Mapping[str, Tensor], path: Path, texts: dict[str, str]) -> None:
    try:
        save_file(dict(tensors), path, texts)
    except SafetensorError as failure:  # of a full disk too, whose number stands in the text alone
        number = re.search(r"os error (\d+)", str(failure))
        code = int(number[1]) if number else errno.EIO
        raise OSError(code, os.strerror(code), str(path)) from failure


def _sort_texts(path: Path) -> None:
    """Order the texts in a file's header by name: safetensors orders them at random, and one run makes one file."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(length)
        assert len(text) == length, "a header in another order has the same length"
        file.seek(8)
        file.write(text)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
