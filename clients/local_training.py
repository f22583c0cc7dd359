"""The local work of horizontal clients: train a model on one's own samples, and evaluate one.

Paper: B. McMahan, E. Moore, D. Ramage, S. Hampson, B. Agüera y Arcas, "Communication-Efficient Learning of Deep
Networks from Decentralized Data", AISTATS 2017, Algorithm 1, ClientUpdate. Nothing here knows Flower.

A diverging client does not crash: a loss that is not finite is returned as it is, and the weights it led to go out like
any others. Whether they enter the average is for the server's check of replies to decide, which sees them from
attackers too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from thornbed.protocol.threads import one_thread as one_thread
from thornbed.tasks import Samples

Objective = Callable[[Tensor, Tensor], Tensor]
"""`(cross_entropy, distance) -> loss`, both scalars; the distance is L2, over all parameters, from where they began."""
MakeOptimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


def train(
    model: nn.Module,
    samples: Samples,
    *,
    optimizer: MakeOptimizer,
    batch_size: int,
    epochs: float,
    generator: torch.Generator,
    device: torch.device | str = "cpu",
    objective: Objective | None = None,
    skipped: int = 0,
) -> float:
    """Train the model in place, on the device, and return the mean cross-entropy over the samples seen.

    An `objective` is minimised in place of the cross-entropy, which is returned all the same. Steps and batches are
    those of `taken`. A sample's loss is that of the step that used it, before the step.
    The order of the samples, and what layers draw (dropout), come from the generator alone; torch's global generators
    are as they were afterwards. They are borrowed meanwhile, so two threads must not train at once.

    Where every batch is one sample (batch_size 1, or a client with a single sample), layers of batch norm use their
    running statistics as in evaluation and leave them as they are: a single sample has no deviation, torch refuses it
    after a linear layer, and after a convolution it would replace the statistics by those of one image.

    Modes of the model's layers are restored, gradients are freed. Raises ValueError without samples, and for a batch
    size < 1 or epochs that are not finite and > 0.
    """
    device = torch.device(device)
    seed = _drawn_seed(generator)
    steps = batches(len(samples), batch_size=batch_size, epochs=epochs, generator=generator, skipped=skipped)
    model.to(device)
    x, y = samples.decoded().x.to(device), samples.y.to(device)
    stepper = optimizer(model.parameters())
    losses, sizes = [], []
    moving = list(model.parameters()) if objective is not None else []
    start = [parameter.detach().clone() for parameter in moving]
    with _mode(model, training=True), _borrowed_randomness(seed, device):
        if uses_running_statistics(len(samples), batch_size):
            for layer in model.modules():
                if isinstance(layer, BatchNorm):
                    layer.eval()
        for rows in steps:
            rows = rows.to(device)
            stepper.zero_grad(set_to_none=True)
            loss = F.cross_entropy(model(x.index_select(0, rows)), y.index_select(0, rows))
            if objective is None:
                loss.backward()
            else:
                moved = torch.cat([(now - then).flatten() for now, then in zip(moving, start, strict=True)])
                objective(loss, torch.linalg.vector_norm(moved)).backward()  # its gradient is 0 at the start
            stepper.step()
            # Kept on the device and read once at the end: each .item() would wait for the device.
            losses.append(loss.detach())
            sizes.append(len(rows))
    stepper.zero_grad(set_to_none=True)
    seen = torch.tensor(sizes, dtype=torch.float64)
    return float(torch.stack(losses).to("cpu", torch.float64) @ seen / seen.sum())


def uses_running_statistics(num_samples: int, batch_size: int) -> bool:
    """Return whether batch norm uses its running statistics in training: where every batch is one sample."""
    return batch_size == 1 or num_samples == 1


def taken(
    num_samples: int, *, batch_size: int, epochs: float, generator: torch.Generator, skipped: int = 0
) -> list[Tensor]:
    """Return the rows (b,) int64 of each step that `train` takes with these arguments and such a generator."""
    _drawn_seed(generator)
    return list(batches(num_samples, batch_size=batch_size, epochs=epochs, generator=generator, skipped=skipped))


def batches(
    num_samples: int, *, batch_size: int, epochs: float, generator: torch.Generator, skipped: int = 0
) -> Iterator[Tensor]:
    """Return the rows of each step, (b,) int64, in a new order for each epoch, without the first `skipped` of them.

    A short last batch is kept; one of a single sample joins the batch before it (which then has batch_size + 1), so
    that no sample is lost and batch norm always sees two. `epochs` may be a fraction: of the last epoch that share of
    the batches, rounded up, so at least one. It is read as the decimal it was written as: 0.07 of a hundred batches is
    seven, although 0.07 * 100 > 7 in floating point. Skipped steps do not count as taken; after the last of an epoch
    comes the first of another, in an order of its own.

    Raises ValueError at once without samples, for batch_size < 1, and for epochs that are not finite and > 0.
    """
    sizes = step_sizes(num_samples, batch_size)
    steps = num_steps(num_samples, batch_size, epochs)
    return islice(_rows(sizes, skipped + steps, generator), skipped, None)


def num_steps(num_samples: int, batch_size: int, epochs: float) -> int:
    """Return how many steps a client takes in a round; see `batches`."""
    if not 0 < epochs < math.inf:
        raise ValueError(f"local training needs finite epochs > 0: epochs = {epochs}")
    return math.ceil(Fraction(str(epochs)) * len(step_sizes(num_samples, batch_size)))


def step_sizes(num_samples: int, batch_size: int) -> list[int]:
    """Return the number of samples in each step of one epoch; see `batches`."""
    if num_samples == 0:
        raise ValueError("local training needs at least one sample: samples = 0")
    if batch_size < 1:
        raise ValueError(f"local training needs batch_size >= 1: batch_size = {batch_size}")
    full, rest = divmod(num_samples, batch_size)
    sizes = [batch_size] * full + ([rest] if rest else [])
    if rest == 1 and full > 0:
        sizes[-2:] = [batch_size + 1]
    return sizes


def evaluate(
    model: nn.Module,
    samples: Samples,
    *,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
    min_confidence: float = 0.0,
) -> tuple[float, float]:
    """Return the mean cross-entropy over the samples, and the accuracy in [0, 1].

    The model is moved to the device and otherwise untouched: its layers' modes are restored. A sample whose logits hold
    a NaN counts as wrong, since argmax would call it class 0, and a diverged model would show a perfect attack
    on class 0. A prediction whose largest softmax probability is below `min_confidence`, in [0, 1], is rejected: it
    counts as wrong, whatever the label, so on attacked samples as no success of the attack. The loss is that of all
    samples. Raises ValueError without samples, for a batch size < 1, and for a `min_confidence` that is no probability.
    """
    if not 0 <= min_confidence <= 1:
        raise ValueError(f"evaluation needs 0 <= min_confidence <= 1: min_confidence = {min_confidence}")
    if len(samples) == 0:
        raise ValueError("evaluation needs at least one sample: samples = 0")
    if batch_size < 1:
        raise ValueError(f"evaluation needs batch_size >= 1: batch_size = {batch_size}")
    device = torch.device(device)
    model.to(device)
    x, y = samples.x.to(device), samples.y.to(device)
    losses, right = [], []
    with _mode(model, training=False), torch.inference_mode():
        for batch_x, batch_y in zip(x.split(batch_size), y.split(batch_size), strict=True):
            # Decoded batch by batch: a whole test set of uint8 pixels would be four times as large on the device.
            logits = model(Samples(batch_x, batch_y).decoded().x)
            losses.append(F.cross_entropy(logits, batch_y, reduction="sum"))
            hit = (logits.argmax(dim=1) == batch_y) & ~logits.isnan().any(dim=1)
            if min_confidence > 0:  # a softmax of infinite logits is NaN: without a threshold they have a largest one
                hit &= logits.softmax(dim=1).amax(dim=1) >= min_confidence
            right.append(hit.sum())
    loss = torch.stack(losses).to("cpu", torch.float64).sum()
    return float(loss) / len(samples), int(torch.stack(right).sum()) / len(samples)


def _rows(sizes: list[int], steps: int, generator: torch.Generator) -> Iterator[Tensor]:
    while steps > 0:
        order = torch.randperm(sum(sizes), generator=generator)
        yield from order.split(sizes)[:steps]
        steps -= len(sizes)


@contextmanager
def _mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Put the model into a mode, and every single layer back into its own afterwards."""
    before = [(layer, layer.training) for layer in model.modules()]
    for layer, mode in before:
        if mode is not training:  # setting an attribute of a layer costs more than looking at it
            layer.training = training
    try:
        yield
    finally:
        for layer, mode in before:
            if layer.training is not mode:
                layer.training = mode


def _drawn_seed(generator: torch.Generator) -> int:
    """Draw the seed of what layers draw; it comes before the orders of the epochs."""
    return int(torch.randint(2**63 - 1, (), generator=generator))


@contextmanager
def _borrowed_randomness(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's global generators, and put them back afterwards; for layers that know no other.

    Seeds the CPU's and, on CUDA, that of the device in use; torch.manual_seed would touch every other device too.
    """
    accelerators = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=accelerators):
        torch.default_generator.manual_seed(seed)
        for accelerator in accelerators:
            with torch.cuda.device(accelerator):
                torch.cuda.manual_seed(seed)
        yield
