"""Time CoPur's purification of a batch beside the same two stages one sample at a time, as one writes them first.

    python benchmarks/inference.py [--repeats 3] [--threads 1]

Embeddings are made: rows of a linear subspace with noise, a third of the agents lying. The loop descends with
autograd, a sample after the other, as many steps as the batch's descents are allowed (100 on the manifold, 10 near it,
as in the paper's code), without an early stop; the batch has its early stop, and its own rule for steps: the lines of a
batch of one tell what that alone costs. Beside it the same two stages with stage one by reweighted least squares, which
is another algorithm for the same minimum. The loop is timed on ten samples. How far above the minimum each ends, in
percent of the sum of distances, is the mean over these ten. Figures are medians over the repeats, ratios are taken
within a repeat.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch import Tensor

from thornbed.defenses.autoencoder import Autoencoder
from thornbed.defenses.autoencoder_fit import fit_autoencoder
from thornbed.defenses.purification import block_norms
from thornbed.defenses.purification.copur import Solver, copur
from thornbed.protocol.randomness import generator

STEPS, PENALTY_STEPS, TAU, ALONE = 100, 10, 10.0, 10
SOLVERS: tuple[Solver, ...] = ("gradient", "reweighted")
SIZES = (1, 10, 32), (32, 10, 32), (465, 10, 32), (4096, 10, 32), (465, 4, 32), (465, 40, 32), (465, 10, 8)


def one_by_one(embeddings: Tensor, manifold: Autoencoder) -> Tensor:
    """Purify embeddings (n, M, d) sample by sample with plain gradient descent, all agents observed."""
    found = []
    for sample in embeddings.split(1):
        size = float(block_norms(sample - manifold.mean).median())
        point = sample.clone().requires_grad_()
        for step in range(STEPS):
            loss = block_norms(sample - manifold(point)).sum()
            (slope,) = torch.autograd.grad(loss, point)
            with torch.no_grad():
                point -= size / (1 + step) * slope / slope.norm()
        point = manifold(point).detach().requires_grad_()
        for step in range(PENALTY_STEPS):
            loss = block_norms(sample - point).sum() + TAU * block_norms(manifold(point) - point).sum()
            (slope,) = torch.autograd.grad(loss, point)
            with torch.no_grad():
                point -= 0.01 * size / (1 + step) * slope / slope.norm()
        found.append(manifold(point).detach())
    return torch.cat(found)


def made(batch: int, agents: int, size: int) -> tuple[Tensor, Autoencoder]:
    """Return embeddings (batch, agents, size) of which a third of the agents lie, and the manifold of clean ones."""
    source = generator(0, "benchmark", agents, size)
    plane = torch.randn(5, agents * size, generator=source)
    clean = torch.randn(1000 + batch, 5, generator=source) @ plane
    clean = (clean + 0.05 * torch.randn(clean.shape, generator=source)).unflatten(1, (agents, size))
    manifold = fit_autoencoder(clean[:1000], source, bottleneck=5).autoencoder
    sent = clean[1000:].clone()
    sent[:, : max(1, agents // 3)] *= -10
    return sent, manifold


def main() -> None:
    """Print a row for every size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="of both; where others compute, two are slower than one")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    print(
        "| batch | agents | dimension | one by one, ms a sample | batch, ms | times | reweighted, ms | times "
        "| one by one, above the minimum % | batch | reweighted |"
    )
    print("|---" * 11 + "|")
    for batch, agents, size in SIZES:
        sent, manifold = made(batch, agents, size)
        everybody = torch.ones(agents, dtype=torch.bool)
        rows = []
        for _ in range(given.repeats):
            took, sums = [], []
            alone = sent[:ALONE]
            for solver in SOLVERS:
                started = time.perf_counter()
                found = copur(
                    sent, everybody, manifold, tau=TAU, solver=solver, steps=STEPS, penalty_steps=PENALTY_STEPS
                )
                took.append((time.perf_counter() - started) / batch)
                sums.append(block_norms(alone - found.features[:ALONE]).sum())
            started = time.perf_counter()
            slowly = one_by_one(alone, manifold)
            sums.insert(0, block_norms(alone - slowly).sum())
            rows.append(((time.perf_counter() - started) / len(alone), *took))
        slow, quick, least = (1e3 * statistics.median(each) for each in zip(*rows, strict=True))
        times, most = (statistics.median(row[0] / row[place] for row in rows) for place in (1, 2))
        least_sum = found.stages[0].best[:ALONE].sum() - found.stages[0].gap[:ALONE].sum()
        above = " | ".join(f"{float(100 * (each / least_sum - 1)):.4f}" for each in sums)
        print(
            f"| {batch} | {agents} | {size} | {slow:.1f} | {quick:.3f} | {times:.0f} | {least:.3f} | {most:.0f} "
            f"| {above} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
