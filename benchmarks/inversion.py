"""Time gradient inversion beside `breaching`, on the same network, gradient, start and objective in one run.

    pip install --target PEER --no-deps breaching==0.1.2 hydra-core omegaconf antlr4-python3-runtime==4.9.3
    python benchmarks/inversion.py --peer PEER                       # one image, ResNet20-4; 16 at once, ResNet-20
    python benchmarks/inversion.py --tables growth                   # how a step grows; needs no peer

Both minimise the cosine distance and 1e-4 times the total variation with Adam on the sign of the gradient, kept in the
box, from the same start; before anything is timed their cosine distances at the start are compared (the peer's total
variation counts the border of the image as an edge, ours does not). Untrained networks, images
of random pixels: neither the time nor the memory of a step depends on what is seen. `breaching` inverts one update
after the other, so the seconds of 16 are 16 times those of one; ours are what 16 at once take.

A candidate is timed by whole calls of so many steps, its preparations included, one candidate after the other in every
repeat; figures are medians over the repeats, and ratios are taken within a repeat. CPU seconds are those of the
process on all cores: on a busy machine they say more than the clock.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from thornbed.attacks.inversion import Observation
from thornbed.attacks.inversion.agic import agic
from thornbed.attacks.inversion.inverting_gradients import inverting_gradients
from thornbed.tasks.models import normalised
from thornbed.tasks.models.resnet20 import resnet20
from thornbed.tasks.sources.torchvision_shim import declare_missing_operators

SHAPE, CLASSES = (3, 32, 32), 10
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
TOTAL_VARIATION = 1e-4
Run = Callable[[int], list[float]]


def network(width: int) -> nn.Module:
    """Return an untrained ResNet-20, always the same, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return resnet20(SHAPE, CLASSES, width=width).eval()


def observations(model: nn.Module, count: int, batch: int = 1, **more: Any) -> list[Observation]:
    """Return what is seen of `count` clients with `batch` images of random pixels."""
    seeing, source = normalised(model, MEAN, STD), torch.Generator().manual_seed(1)
    names = [name for name, _ in seeing.named_parameters()]
    found = []
    for _ in range(count):
        x, y = torch.rand(batch, *SHAPE, generator=source), torch.randperm(CLASSES, generator=source)[:batch]
        gradients = torch.autograd.grad(F.cross_entropy(seeing(x), y), list(seeing.parameters()))
        found.append(
            Observation(
                model=seeing, gradient=dict(zip(names, gradients, strict=True)), num_samples=batch, sample_shape=SHAPE,
                num_classes=CLASSES, mean=MEAN, std=STD, labels=y, **more,
            )
        )  # fmt: skip
    return found


def ours(seen: list[Observation], parallel: int, variation: float = TOTAL_VARIATION) -> Run:
    """Return a run of our attack; it returns the losses of the first inversion."""

    def run(steps: int) -> list[float]:
        found = inverting_gradients(
            seen, torch.Generator().manual_seed(2), steps=steps, total_variation=variation, labels="known",
            decay="none", parallel=parallel,
        )  # fmt: skip
        return found[0].losses[:-1].tolist()

    return run


def breaching(folder: Path, model: nn.Module, seen: Observation, variation: float = TOTAL_VARIATION) -> Run:
    """Return a run of the peer's attack on one observation."""
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    declare_missing_operators()
    from breaching.attacks.optimization_based_attack import OptimizationBasedAttacker
    from omegaconf import OmegaConf

    configs = Path(sys.modules["breaching"].__file__ or "").parent / "config" / "attack"
    files = ("_default_optimization_attack.yaml", "invertinggradients.yaml")
    config = OmegaConf.merge(*(OmegaConf.load(configs / name) for name in files))
    config.optim.step_size_decay = None
    config.regularization.total_variation.scale = variation
    about = types.SimpleNamespace(shape=SHAPE, mean=MEAN, std=STD, modality="vision")
    payload = [{"parameters": list(model.parameters()), "buffers": list(model.buffers()), "metadata": about}]
    shared = {"labels": seen.labels, "num_data_points": seen.num_samples, "local_hyperparams": None}
    data = [{"gradients": [g.clone() for g in seen.gradient.values()], "buffers": None, "metadata": shared}]

    def run(steps: int) -> list[float]:
        config.optim.max_iterations = steps
        attacker = OptimizationBasedAttacker(model, nn.CrossEntropyLoss(), config)
        start = torch.randn(seen.num_samples, *SHAPE, generator=torch.Generator().manual_seed(2))
        _, stats = attacker.reconstruct(payload, data, server_secrets={}, initial_data=start)
        return list(stats["Trial_0_Val"])

    return run


def timed(runs: dict[str, Run], steps: int, repeats: int) -> dict[str, list[tuple[float, float]]]:
    """Return clock and CPU seconds per step of every candidate in every repeat."""
    seconds: dict[str, list[tuple[float, float]]] = {label: [] for label in runs}
    for run in runs.values():
        run(1)
    for _ in range(repeats):
        for label, run in runs.items():
            clock, cpu = time.perf_counter(), time.process_time()
            run(steps)
            seconds[label].append(((time.perf_counter() - clock) / steps, (time.process_time() - cpu) / steps))
    return seconds


def beside_the_peer(folder: Path | None, width: int, count: int, steps: int, repeats: int) -> None:
    """Print image-steps per second of `count` inversions at once, and how many times the peer's they are."""
    model = network(width)
    seen = observations(model, count)
    runs: dict[str, Run] = {f"ours, {count} at once": ours(seen, count)}
    if count > 1:
        runs["ours, one"] = ours(seen[:1], 1)
    if folder is not None:
        runs["breaching, one"] = breaching(folder, model, seen[0])
        one, other = ours(seen[:1], 1, 0.0)(1)[0], breaching(folder, model, seen[0], 0.0)(1)[0]
        print(f"\ncosine distance at the start: {one:.6f} ours, {other:.6f} breaching")
    seconds = timed(runs, steps, repeats)
    print(f"\nResNet-20, width {width}, {sum(p.numel() for p in model.parameters()):,} parameters, batch 1\n")
    print(
        "| candidate | seconds a step | CPU seconds a step | image-steps a second | times breaching's | by CPU time |"
    )
    print("| --- | --- | --- | --- | --- | --- |")
    for label, values in seconds.items():
        images = count if label.endswith("at once") else 1
        clock, cpu = (statistics.median(value[i] for value in values) for i in (0, 1))
        ratios = ["-", "-"]
        if "breaching, one" in seconds:
            pairs = list(zip(values, seconds["breaching, one"], strict=True))
            ratios = [f"{statistics.median(images * peer[i] / own[i] for own, peer in pairs):.2f}" for i in (0, 1)]
        print(f"| {label} | {clock:.3f} | {cpu:.3f} | {images / clock:.1f} | {ratios[0]} | {ratios[1]} |")


def growth(steps: int, repeats: int) -> None:
    """Print how a step of AGIC grows with width, batch size, inversions at once, and simulated local steps."""
    print("\n| width | inversions | batch size | local steps | read | seconds a step | CPU seconds a step |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    base = (16, 1, 1, 1)
    cases = [base, (32, 1, 1, 1), (64, 1, 1, 1), (16, 4, 1, 1), (16, 16, 1, 1), (16, 1, 4, 1), (16, 1, 8, 1)]
    cases += [(16, 1, 8, local) for local in (2, 4, 8)]
    cases += [(4, 1, 8, 8)]  # where arithmetic costs little beside the calls, as on a GPU
    for width, count, batch, local in cases:
        more = {"learning_rate": 1e-4, "local_steps": local, "batch_size": batch // local}
        seen = observations(network(width), count, batch, **more)
        for read in ("one_batch", "simulated") if local > 1 else ("one_batch",):

            def run(steps: int, seen: list[Observation] = seen, read: Any = read) -> list[float]:
                agic(seen, torch.Generator().manual_seed(2), steps=steps, labels="known", local_steps=read)
                return []

            values = timed({"": run}, steps, repeats)[""]
            clock, cpu = (statistics.median(value[i] for value in values) for i in (0, 1))
            print(f"| {width} | {count} | {batch} | {local} | {read} | {clock:.3f} | {cpu:.3f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, help="the folder that breaching was installed into")
    parser.add_argument("--tables", nargs="+", choices=("single", "batched", "growth"), default=["single", "batched"])
    parser.add_argument("--inversions", type=int, default=16, help="how many at once (16)")
    parser.add_argument("--steps", type=int, default=20, help="of every timed call (20)")
    parser.add_argument("--repeats", type=int, default=5, help="how often everything is run (5)")
    options = parser.parse_args()
    if options.peer is not None and not (options.peer / "breaching").is_dir():
        parser.error(f"there is no breaching in {options.peer}")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(f"{options.repeats} repeats of {options.steps} steps")
    if "single" in options.tables:
        beside_the_peer(options.peer, 64, 1, options.steps, options.repeats)
    if "batched" in options.tables:
        beside_the_peer(options.peer, 16, options.inversions, options.steps, options.repeats)
    if "growth" in options.tables:
        growth(options.steps, options.repeats)


if __name__ == "__main__":
    main()
