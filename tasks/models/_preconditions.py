"""What the networks of this folder ask of their arguments, checked with a sentence that says what they take."""

from __future__ import annotations


def image_shape(model: str, sample_shape: tuple[int, ...], *, instead: str = "mlp") -> tuple[int, int, int]:
    """Return (C, H, W), or raise ValueError where samples are no images, with the name of a model that takes them."""
    if len(sample_shape) != 3:
        raise ValueError(
            f"{model} takes images of shape (channels, height, width): one sample has shape {tuple(sample_shape)}; "
            f"{instead} takes samples of any shape"
        )
    channels, height, width = sample_shape
    return channels, height, width


def sequence_shape(model: str, sample_shape: tuple[int, ...]) -> tuple[int, int]:
    """Return (length, features), or raise ValueError where samples are no sequences of vectors."""
    if len(sample_shape) != 2:
        raise ValueError(
            f"{model} takes sequences of shape (length, features): one sample has shape {tuple(sample_shape)}; "
            "mlp takes samples of any shape"
        )
    length, features = sample_shape
    return length, features


def check_norm(model: str, norm: str) -> None:
    """Raise ValueError unless `norm` is "batch", "frozen" or "none"."""
    if norm not in ("batch", "frozen", "none"):
        raise ValueError(f'{model} takes norm "batch", "frozen" or "none": norm = {norm!r}')


def check_initial(model: str, initial: str) -> None:
    """Raise ValueError unless `initial` is "he" or "torch"."""
    if initial not in ("he", "torch"):
        raise ValueError(f'{model} takes initial "he" or "torch": initial = {initial!r}')


def check_width(model: str, option: str, width: int) -> None:
    """Raise ValueError unless a layer has at least one unit or channel."""
    if width < 1:
        raise ValueError(f"{model} needs {option} >= 1: {option} = {width}")
