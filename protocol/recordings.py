"""One client's update on disk: the model that was sent, the one that came back, what is known of the work between.

A recording is a safetensors file, which holds tensors and text and nothing that could run. `sent/NAME` and
`received/NAME` are the two models' tensors; the metadata say `format`, `version`, and in `facts`, as JSON, what the
fields of `Facts` are. What a client trained on is no part of it: `save_originals` writes that to a file of its own, for
whoever measures how much an update gives away.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import PydanticCustomError
from torch import Tensor

from thornbed.protocol.tensor_files import load_tensors, save_tensors

FORMAT, VERSION = "thornbed-recording", "1"
ORIGINALS = ".originals.safetensors"
SENT, RECEIVED = "sent/", "received/"
LARGEST = 65_536  # images of one update; more is a damaged number

Whole = Annotated[int, Field(ge=1, lt=2**31)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
AboveZero = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class BadRecording(ValueError):
    """A file that is no recording, or one that cannot be read; the text is a sentence that names it."""


class Facts(BaseModel):
    """What is known of the work behind an update.

    Attributes
    ----------
    model : spec of the network, such as resnet20(width=64), a file of tasks/models.
    sample_shape : (C, H, W) of one image.
    num_classes : outputs of the network.
    mean, std : of the data by channel, where the network is fed (x - mean) / std; both empty: fed x itself, in [0, 1].
    num_samples : images that went into the update.
    learning_rate : of plain local SGD; None where it is not known, or the optimiser is another.
    local_steps : of the optimiser.
    batch_size : of a local step; None: all samples in each. Several numbers, whose sum is num_samples, are the sizes of
        the steps until all samples had their turn, where they are not equal up to a smaller last one.
    batch_norm : what its layers normalised with while the client trained: their running statistics (evaluation), or
        those of each batch (training).
    round, client, epoch : when and from whom; which pass over its data it was, from 1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model: str
    sample_shape: tuple[Whole, Whole, Whole]
    num_classes: Whole
    num_samples: Annotated[int, Field(ge=1, le=LARGEST)]
    mean: tuple[Finite, ...] = ()
    std: tuple[AboveZero, ...] = ()
    learning_rate: AboveZero | None = None
    local_steps: Whole = 1
    batch_size: int | tuple[int, ...] | None = None
    batch_norm: Literal["evaluation", "training"] = "training"
    round: Whole = 1
    client: Annotated[int, Field(ge=0)] = 0
    epoch: Whole = 1

    @field_validator("batch_size", mode="before")
    @classmethod
    def _sizes(cls, value: Any) -> Any:
        sizes = value if isinstance(value, list | tuple) else [value]
        if value is not None and not (sizes and all(type(size) is int and 1 <= size < 2**31 for size in sizes)):
            raise PydanticCustomError("sizes", "Input should be a whole number above 0, or several of them")
        return value


@dataclass(frozen=True, kw_only=True, eq=False)
class Recording:
    """What a file holds: two models by the names of their tensors, and the facts."""

    sent: Mapping[str, Tensor]
    received: Mapping[str, Tensor]
    facts: Facts


def save_update(path: str | Path, sent: Mapping[str, Tensor], received: Mapping[str, Tensor], **facts: Any) -> None:
    """Write a recording; `facts` are the fields of `Facts`.

    The folder is made where it is missing; the file is written whole or not at all. Raises ValueError for facts that
    are wrong or missing, and where the two models do not hold the same tensors.
    """
    try:
        known = Facts(**facts)
    except ValidationError as error:
        raise ValueError(f"a recording cannot be made: {_sentence(error)}") from None
    if (fault := _difference(sent, received)) is not None:
        raise ValueError(f"a recording cannot be made: {fault}")
    tensors = {SENT + name: tensor for name, tensor in sent.items()}
    tensors |= {RECEIVED + name: tensor for name, tensor in received.items()}
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    save_tensors(Path(path), tensors, {"format": FORMAT, "version": VERSION, "facts": known.model_dump_json()})


def load_update(path: str | Path) -> Recording:
    """Read a recording; raises BadRecording for a file that is none, is damaged, or has another version."""
    tensors, metadata = _load(Path(path))
    if metadata.get("format") != FORMAT:
        raise BadRecording(f"{path} is no recording; thornbed.protocol.recordings.save_update makes one")
    if metadata.get("version") != VERSION:
        raise BadRecording(f"{path} is a recording of version {metadata.get('version')}; this Thornbed reads {VERSION}")
    try:
        facts = Facts.model_validate(json.loads(metadata["facts"]))
    except ValidationError as error:
        raise BadRecording(f"{path} is damaged: {_sentence(error)}") from None
    except (KeyError, ValueError, RecursionError) as error:
        raise BadRecording(f"{path} is damaged: its facts cannot be read ({error})") from None
    sent, received = (_part(tensors, prefix) for prefix in (SENT, RECEIVED))
    if (fault := _difference(sent, received)) is not None:
        raise BadRecording(f"{path} is damaged: {fault}")
    return Recording(sent=sent, received=received, facts=facts)


def save_originals(path: str | Path, images: Tensor, labels: Tensor) -> None:
    """Write what the client of a recording trained on: images (n, C, H, W) in [0, 1], labels (n,), by first use."""
    save_tensors(originals_path(path), {"images": images, "labels": labels}, {"format": f"{FORMAT}-originals"})


def load_originals(path: str | Path, facts: Facts) -> tuple[Tensor, Tensor] | None:
    """Return images and labels that lie beside a recording, None where none do.

    Raises BadRecording where they are no images like those of the recording.
    """
    beside = originals_path(path)
    if not beside.exists():
        return None
    tensors, _ = _load(beside)
    images, labels = tensors.get("images"), tensors.get("labels")
    if images is None or labels is None:
        raise BadRecording(f"{beside} is damaged: it holds no images and labels")
    wanted = (facts.num_samples, *facts.sample_shape)
    if tuple(images.shape) != wanted or tuple(labels.shape) != wanted[:1]:
        raise BadRecording(
            f"{beside} does not belong to the recording: its images are {tuple(images.shape)}, those of the update "
            f"{wanted}"
        )
    if labels.is_floating_point() or not 0 <= int(labels.min()) <= int(labels.max()) < facts.num_classes:
        raise BadRecording(f"{beside} is damaged: labels lie in [0, {facts.num_classes})")
    return images.to(torch.float32), labels.to(torch.int64)


def originals_path(path: str | Path) -> Path:
    """Return where the originals of a recording lie: NAME.originals.safetensors beside NAME.safetensors."""
    path = Path(path)
    return path.with_name(path.name.removesuffix(".safetensors") + ORIGINALS)


def recordings_in(folder: Path) -> list[Path]:
    """Return the recordings in a folder, by name."""
    return [path for path in sorted(folder.glob("*.safetensors")) if not path.name.endswith(ORIGINALS)]


def _difference(sent: Mapping[str, Tensor], received: Mapping[str, Tensor]) -> str | None:
    if not sent:
        return "it holds no model that was sent"
    for name in sorted(sent.keys() ^ received.keys()):
        return f"{name} was {'sent and did not come back' if name in sent else 'not sent and came back'}"
    for name, tensor in sent.items():
        if tensor.shape != received[name].shape:
            return f"{name} was sent as {tuple(tensor.shape)} and came back as {tuple(received[name].shape)}"
    return None


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _load(path: Path) -> tuple[dict[str, Tensor], Mapping[str, str]]:
    try:
        return load_tensors(path)
    except FileNotFoundError:
        raise BadRecording(f"{path} is not there") from None
    except ValueError as error:
        raise BadRecording(f"{path} is no recording, or damaged ({error})") from None


def _sentence(error: ValidationError) -> str:
    fault = error.errors()[0]
    return f"{'.'.join(map(str, fault['loc'])) or 'facts'}: {fault['msg'][:1].lower()}{fault['msg'][1:]}"
