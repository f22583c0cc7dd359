"""Time MOCHA's solver to a relative duality gap beside plain NumPy and scikit-learn's liblinear, and how it grows.

    python benchmarks/multitask.py --data-dir DIR          # landmine, parkinsons_total, one node beside liblinear
    python benchmarks/multitask.py --tables growth         # made nodes; needs no data

"NumPy" is the same coordinate ascent written with NumPy's products, a row at a time in Python, as one writes it first:
it takes the same steps in the same order, so both need the same passes. The rows of liblinear are one node's hinge with
the same constant, to the same gap, which is computed by us from its weights. Compilation is not timed. Figures are
medians over the repeats, ratios are taken within a repeat; CPU seconds are those of the process.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from sklearn.svm import LinearSVC

from thornbed.tasks.mocha.objective import Coupling, dual, primal, summed_duals, unrelated
from thornbed.tasks.mocha.solving import federate, solve, solve_squared
from thornbed.tasks.multitask import Array, Loss, Points
from thornbed.tasks.multitask.landmine import landmine
from thornbed.tasks.multitask.parkinsons_total import parkinsons_total

GAP = 1e-3


def plain_numpy(points: Sequence[Points], coupling: Coupling, loss: Loss, gap: float) -> int:
    """Solve as `tasks.mocha.solving.solve` does, with NumPy's products row by row; return the passes it took."""
    generator = torch.Generator().manual_seed(0)
    influence, alphas = coupling.influence, [np.zeros(len(each)) for each in points]
    weights, passes = np.zeros((points[0].x.shape[1], len(points))), 0
    while True:
        above, below = primal(points, weights, coupling, loss), dual(points, alphas, coupling, loss)
        if above - below <= gap * above or passes >= 2000:
            return passes
        for _ in range(max(1, passes // 4)):
            orders = [torch.randperm(len(each), generator=generator).numpy() for each in points]
            for node, each in enumerate(points):
                w = weights[:, node].copy()
                for i in orders[node]:
                    row, y, alpha = each.x[i], each.y[i], alphas[node][i]
                    z = row @ w
                    bend = influence[node, node] / len(each) * (row @ row)
                    if loss == "hinge":
                        change = y * min(1.0, max(0.0, y * alpha + (1 - y * z) / bend)) - alpha
                    else:
                        change = (y - z - alpha / 2) / (0.5 + bend)
                    alphas[node][i] += change
                    w += row * (change / len(each) * influence[node, node])
                weights += np.outer((w - weights[:, node]) / influence[node, node], influence[node])
            passes += 1
        weights = coupling.weights(summed_duals(points, alphas))


def seconds_of(run: Callable[[], object]) -> tuple[float, float, object]:
    """Return clock and CPU seconds of a call, and what it returned."""
    clock, cpu = time.perf_counter(), time.process_time()
    returned = run()
    return time.perf_counter() - clock, time.process_time() - cpu, returned


def to_the_gap(data_dir: Path, repeats: int) -> None:
    """Print the seconds to the gap of all solvers on both tasks."""
    print("\n| task | solver | seconds | CPU seconds | NumPy's, times | passes or rounds |\n|---|---|---|---|---|---|")
    for task, lambda1 in ((landmine(data_dir), 1e-3), (parkinsons_total(data_dir), 1e-2)):
        points, coupling = task.train, Coupling(unrelated(len(task.nodes)), lambda1, 1e-3)
        runs: dict[str, Callable[[], object]] = {
            "one place": partial(_ours, points, coupling, task.loss),
            "rounds of 20 passes, no messages": partial(_rounds, points, coupling, task.loss),
        }
        if task.loss == "squared":
            runs["one linear system"] = partial(solve_squared, points, coupling)
        runs["NumPy"] = partial(plain_numpy, points, coupling, task.loss, GAP)
        _printed(task.name, runs, repeats)


def _ours(points: Sequence[Points], coupling: Coupling, loss: Loss) -> int:
    return solve(points, coupling, loss, torch.Generator().manual_seed(0), gap=GAP, max_passes=2000).passes


def _rounds(points: Sequence[Points], coupling: Coupling, loss: Loss) -> int:
    """Return how many rounds of a federation reach the gap; doubled until they do."""
    rounds = 8
    while True:
        found = federate(points, coupling, loss, torch.Generator().manual_seed(0), rounds=rounds, passes=20)
        small = np.flatnonzero(found.primals - found.duals <= GAP * found.primals)
        if len(small):
            return int(small[0])
        rounds *= 2


def _printed(name: str, runs: dict[str, Callable[[], object]], repeats: int) -> None:
    taken: dict[str, list[tuple[float, float, object]]] = {label: [] for label in runs}
    for label in runs:
        if label != "NumPy":
            runs[label]()  # compiles
    for _ in range(repeats):
        for label, run in runs.items():
            taken[label].append(seconds_of(run))
    for label, values in taken.items():
        clock, cpu = statistics.median(each[0] for each in values), statistics.median(each[1] for each in values)
        ratio = statistics.median(slow[1] / own[1] for own, slow in zip(values, taken["NumPy"], strict=True))
        passes = values[-1][2] if isinstance(values[-1][2], int) else "-"
        print(f"| {name} | {label} | {clock:.3f} | {cpu:.3f} | {ratio:.1f} | {passes} |", flush=True)


def beside_liblinear(data_dir: Path, repeats: int) -> None:
    """Print the seconds of one node's hinge beside liblinear's, and the gap that each reaches."""
    points = landmine(data_dir).nodes[0].train
    coupling = Coupling(np.zeros((1, 1)), 0.0, 1e-3)
    best = solve([points], coupling, "hinge", torch.Generator(), gap=1e-9).primal
    # liblinear has |w|^2 / 2 + C sum of losses: C = 1 / (2 lambda2 n).
    machine = LinearSVC(C=1 / (2 * 1e-3 * len(points)), loss="hinge", fit_intercept=False, tol=1e-4, max_iter=100_000)

    def theirs() -> Array:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return np.asarray(machine.fit(points.x, points.y).coef_.T)

    def ours() -> Array:
        return solve([points], coupling, "hinge", torch.Generator().manual_seed(0), gap=GAP).weights

    print("\n| one node | seconds | CPU seconds | above the optimum |\n|---|---|---|---|")
    for label, run in (("ours", ours), ("liblinear", theirs)):
        weights = run()
        values = [seconds_of(run) for _ in range(repeats * 5)]
        clock, cpu = statistics.median(each[0] for each in values), statistics.median(each[1] for each in values)
        above = primal([points], weights, coupling, "hinge") / best - 1
        print(f"| {label} | {clock:.4f} | {cpu:.4f} | {above:.1e} |", flush=True)


def growth(repeats: int) -> None:
    """Print the seconds to the gap on made nodes, one number changed at a time."""
    print("\n| nodes | points a node | features | loss | seconds | passes |\n|---|---|---|---|---|---|")
    base = (30, 200, 20)
    cases = [base, (60, 200, 20), (120, 200, 20), (30, 400, 20), (30, 800, 20), (30, 200, 80), (30, 200, 320)]
    for nodes, count, features in cases:
        for loss in ("hinge", "squared"):
            rng = np.random.default_rng(0)
            points = []
            for _ in range(nodes):
                x = rng.normal(size=(count, features))
                z = x @ rng.normal(1.0, 0.3, size=features) / features**0.5 + 0.3 * rng.normal(size=count)
                points.append(Points(x, np.sign(z) if loss == "hinge" else z))
            coupling = Coupling(unrelated(nodes), 1e-2, 1e-2)
            values, found = [], None
            for _ in range(repeats + 1):
                began = time.perf_counter()
                found = solve(points, coupling, loss, torch.Generator().manual_seed(0), gap=GAP, max_passes=2000)  # type: ignore[arg-type]
                values.append(time.perf_counter() - began)
            passes = found.passes if found is not None else 0
            seconds = statistics.median(values[1:])
            print(f"| {nodes} | {count} | {features} | {loss} | {seconds:.3f} | {passes} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="folder with landmine.mat and parkinsons_updrs.csv")
    parser.add_argument("--tables", nargs="+", choices=("gap", "node", "growth"), default=["gap", "node"])
    parser.add_argument("--repeats", type=int, default=3, help="how often everything is run (3)")
    options = parser.parse_args()
    if options.data_dir is None and {"gap", "node"} & set(options.tables):
        parser.error("--data-dir is needed but for --tables growth")
    torch.set_num_threads(1)
    if "gap" in options.tables:
        to_the_gap(options.data_dir, options.repeats)
    if "node" in options.tables:
        beside_liblinear(options.data_dir, options.repeats)
    if "growth" in options.tables:
        growth(options.repeats)


if __name__ == "__main__":
    main()
