"""What finished inversions leave in a folder, read back: inversions.json, checked, whoever wrote it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

INVERSIONS, TENSORS = "inversions.json", "inversions.safetensors"
GRID, STEPS = "inversions.png", "inversion_steps.png"
# A kilobyte or two for each inversion: enough for a hundred clients in hundreds of rounds.
LARGEST = 64_000_000

Count = Annotated[int, Field(ge=0, lt=2**63)]
PerImage = list[FiniteFloat | None]


class Inversion(BaseModel):
    """One inversion of one client's update in one round, as docs/records.md has it."""

    model_config = ConfigDict(frozen=True)

    round: Count
    client: Count
    num_samples: Annotated[int, Field(ge=1, lt=2**31)]
    local_steps: Count
    learning_rate: FiniteFloat | None
    labels: list[int]
    true_labels: list[int] | None
    psnr: PerImage | None
    ssim: PerImage | None
    lpips: PerImage | None
    unscored: str | None
    loss: FiniteFloat | None
    best_step: Count
    steps: Count
    seconds_per_step: FiniteFloat | None
    together: Count
    failure: str | None

    @model_validator(mode="after")
    def _one_for_each_image(self) -> Self:
        for name in ("labels", "true_labels", "psnr", "ssim", "lpips"):
            if (values := getattr(self, name)) is not None and len(values) != self.num_samples:
                raise ValueError(f"{name} has {len(values)} entries for {self.num_samples} images")
        return self

    @property
    def name(self) -> str:
        """Return which it is, in a few words."""
        return f"round {self.round}, client {self.client}"


class StoredInversions(BaseModel):
    """All inversions of a folder: what attacked, what it looked at, and what came out."""

    model_config = ConfigDict(frozen=True)

    curious: str
    observed: str
    seconds: FiniteFloat | None
    peak_memory_mib: FiniteFloat | None
    warnings: list[str]
    lpips_missing: str | None
    inversions: list[Inversion]

    def mean(self, metric: str) -> float | None:
        """Return the mean of psnr, ssim or lpips over all images that have it; None where none has."""
        lists = (getattr(each, metric) or () for each in self.inversions)
        values = [value for several in lists for value in several if value is not None]
        return sum(values) / len(values) if values else None


def read_inversions(folder: Path) -> StoredInversions:
    """Read inversions.json; raises ValueError with one sentence where it is damaged, and OSError."""
    path = folder / INVERSIONS
    if (size := path.stat().st_size) > LARGEST:
        raise ValueError(f"{path} has {size:,} bytes, and at most {LARGEST:,} are read")
    try:
        return StoredInversions.model_validate_json(path.read_bytes())
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, fault["loc"]))
        raise ValueError(f"{path} is damaged: {fault['msg']}{f' at {where}' if where else ''}") from None
