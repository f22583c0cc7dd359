"""Letting `import torchvision` succeed beside a build of torch for which its compiled operators do not load.

Source: torchvision's wheels are built for CUDA, torch's may be built for the CPU. The compiled operators then fail to
load, and the import ends with "operator torchvision::nms does not exist", although data sets, transforms and models
use none of them. Declaring the two operators that the import names, without an implementation, is enough.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch

SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)

# Declarations are withdrawn when the Library object that made them is deleted, so it is kept here.
_declared: list[torch.library.Library] = []


def declare_missing_operators() -> None:
    """Make `import torchvision` work; call it right before the import, as often as you like.

    Where torchvision's own operators load, they are loaded and nothing is declared. Where they do not, calling
    `torchvision.ops.nms` afterwards fails as an operator without an implementation. Without torchvision it does
    nothing, and the import says what is missing.
    """
    if hasattr(torch.ops.torchvision, "nms") or _own_operators_load():
        return
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in SCHEMAS:
        library.define(schema)
    _declared.append(library)


def _own_operators_load() -> bool:
    """Load torchvision's compiled operators, exactly as its import would, and return whether they are there."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return True
    for compiled in Path(spec.origin).parent.glob("_C.*"):
        try:
            torch.ops.load_library(compiled)
        except OSError:
            continue
        return True
    return False
