"""How large the elements of a malicious and of a benign update are, and what mimicry costs the attacker.

Paper: X. Wang, Dimitriadis, Koyejo, Tople, "Invariant Aggregator for Defending against Federated Backdoor Attacks",
AISTATS 2024, Figure 5 and Appendix D.2.

The paper's numbers: of a malicious gradient of 11,689,512 elements 747 are above 0.01 in magnitude; set to the benign
gradient's but for the 1,000 largest, its cosine similarity with that becomes 0.983, and the attack loses 3.85% of what
it gains. (So many elements has a ResNet-18 with ImageNet's thousand classes.) The paper does not say at which model:
here it is where the run ended. Nor does it say what gains: here it is how much the update alone, added to the model,
lowers the loss of the attacked test samples with the labels that the attacker wants.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from torch import Tensor

from thornbed.attacks.update import Sight
from thornbed.attacks.update.mimic import mimic
from thornbed.experiments.figures import Drawing, check_backdoor
from thornbed.experiments.figures._page import DOTTED, FAINT, legend, named, page
from thornbed.experiments.runs.finished import FinishedRun
from thornbed.flower_apps.records.curves import ACCURACY, ATTACK
from thornbed.flower_apps.settings import Resolved
from thornbed.protocol.randomness import generator

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

DASH = (0, (5, 2))


@dataclass(frozen=True, kw_only=True)
class UpdateHistogram:
    """Draw one run: the attacker of the highest number beside the honest client of the lowest, in the next round.

    The histogram has `num_bins` equal bins over all values of both updates. Elements above `threshold` in magnitude are
    counted. The mimic keeps `num_kept` elements of the malicious update, as the paper's does, and for comparison each
    power of ten and its double and quintuple up to all d of them. An update's progress is how much it lowers the
    attack's loss, as a share of how much the malicious update does: 1 is no penalty for mimicry, 0 no attack; NaN
    where the malicious update itself does not lower it.

    Tables: "" has a row for each bin with its edges and the counts of both updates, which sum to d; "mimicry" one for
    each number of elements kept, with the cosine similarity with the benign update, the loss (nats) and the progress;
    "elements" one for each update, with d, its norm (L2) and how many elements are above the threshold.
    """

    num_kept: int = 1000
    num_bins: int = 101
    threshold: float = 0.01

    needs_cells: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for option, least in (("num_kept", 0), ("num_bins", 1)):
            if getattr(self, option) < least:
                raise ValueError(f"update_histogram needs {option} >= {least}: {option} = {getattr(self, option)}")
        if not 0 <= self.threshold < math.inf:
            raise ValueError(f"update_histogram needs a finite threshold >= 0: threshold = {self.threshold}")

    def check(self, cells: Sequence[Resolved]) -> None:
        """Raise ValueError unless there is one cell, with an attack on data and somebody who is honest."""
        if len(cells) != 1:
            raise ValueError(f"update_histogram draws one cell: cells = {len(cells)}")
        check_backdoor("update_histogram", cells)
        if len(cells[0].malicious) == cells[0].num_clients:
            raise ValueError("update_histogram needs an honest client beside the malicious ones")

    def draw(self, runs: Sequence[FinishedRun]) -> Drawing:
        """Return the drawing of the one run."""
        import pandas as pd

        [run] = runs
        honest = min(set(range(run.settings.num_clients)) - run.attackers)
        updates = {"malicious": run.update(max(run.attackers)), "benign": run.update(honest)}
        values = {name: update.numpy() for name, update in updates.items()}
        both = np.concatenate(list(values.values()))
        edges = np.histogram_bin_edges(both, self.num_bins)
        counts = {name: np.histogram(each, edges)[0] for name, each in values.items()}
        bins = pd.DataFrame({"from": edges[:-1], "to": edges[1:], **counts})
        elements = pd.DataFrame(
            {
                "update": name,
                "elements": each.size,
                "norm": float(np.linalg.norm(each.astype(np.float64))),
                "threshold": self.threshold,
                "above_threshold": int((np.abs(each) > self.threshold).sum()),
            }
            for name, each in values.items()
        )
        mimicry = pd.DataFrame(self._mimicry(run, updates["malicious"], updates["benign"]))
        tables = {"": bins, "mimicry": mimicry, "elements": elements}
        return Drawing(self._picture(tables), tables)

    def _mimicry(self, run: FinishedRun, malicious: Tensor, benign: Tensor) -> list[Mapping[str, Any]]:
        before = run.loss(run.backdoor)
        gained = before - run.loss(run.backdoor, malicious)
        rows: list[Mapping[str, Any]] = []
        for kept in self._kept(len(malicious)):
            sight = Sight(benign=lambda: benign, last_step=lambda: None)
            sent = mimic(malicious[None], generator(run.settings.seed, "mimic"), sight, num_kept=kept)
            loss = run.loss(run.backdoor, sent)
            progress = (before - loss) / gained if gained > 0 else math.nan
            rows.append({"kept": kept, "cosine": _cosine(sent, benign), "loss": loss, "progress": progress})
        return rows

    def _kept(self, d: int) -> list[int]:
        steps = {digit * 10**power for power in range(len(str(d))) for digit in (1, 2, 5)}
        return sorted({number for number in {*steps, self.num_kept} if number < d} | {d})

    def _picture(self, tables: Mapping[str, pd.DataFrame]) -> Figure:
        from matplotlib.lines import Line2D
        from matplotlib.patches import Patch

        bins, elements = tables[""], tables["elements"].set_index("update")
        d = int(elements["elements"].iloc[0])
        mimicry = tables["mimicry"][tables["mimicry"]["kept"] > 0]  # the axis is logarithmic
        marked = tables["mimicry"].set_index("kept").loc[min(self.num_kept, d)]
        figure, [[left, right]] = page([["Elements of an update", "What mimicry costs"]], panel=(4.8, 3.5))
        edges = np.append(bins["from"], bins["to"].iloc[-1])
        left.stairs(bins["malicious"], edges, fill=True, color=ATTACK, alpha=0.35, linewidth=0)
        for name, color in (("malicious", ATTACK), ("benign", ACCURACY)):
            left.stairs(bins[name], edges, color=color, linewidth=1.4, baseline=None)
        for side in (-self.threshold, self.threshold):
            left.axvline(side, color=FAINT, linewidth=0.9, linestyle=DOTTED)
        left.set_yscale("log")
        left.set_ylim(bottom=0.7)
        named(left, x="value of the element (change of a parameter)", y="elements in the bin")
        right.plot(mimicry["kept"], mimicry["cosine"], color=ACCURACY, marker="o", markersize=3)
        right.plot(mimicry["kept"], mimicry["progress"], color=ATTACK, linestyle=DASH, marker="o", markersize=3)
        right.axvline(max(min(self.num_kept, d), 1), color=FAINT, linewidth=0.9, linestyle=DOTTED)
        right.set_xscale("log")
        shares = mimicry[["cosine", "progress"]].to_numpy()
        right.set_ylim(np.nanmin(shares, initial=0.0) - 0.03, np.nanmax(shares, initial=1.0) + 0.03)
        named(right, x="elements that stay malicious, the largest ones", y="cosine; progress (1: nothing is lost)")
        above = {name: f"{count:,}" for name, count in elements["above_threshold"].items()}
        beyond = f"above {self.threshold:g} of {d:,}: malicious {above['malicious']}, benign {above['benign']}"
        at = f"{self.num_kept:,} kept: cosine {marked['cosine']:.3f}, progress {marked['progress']:.3f}"
        keys = [
            Patch(facecolor=ATTACK, alpha=0.35, edgecolor=ATTACK, label="malicious update"),
            Line2D([], [], color=ACCURACY, linewidth=1.4, label="benign update"),
            Line2D([], [], color=ACCURACY, marker="o", markersize=3, label="cosine with the benign update"),
            Line2D([], [], color=ATTACK, linestyle=DASH, marker="o", markersize=3, label="progress of the attack"),
            Line2D([], [], color=FAINT, linewidth=0.9, linestyle=DOTTED, label=beyond),
            Line2D([], [], color=FAINT, linewidth=0.9, linestyle=DOTTED, label=at),
        ]
        legend(figure, keys, columns=3)
        return figure


def _cosine(one: Tensor, other: Tensor) -> float:
    """Return the cosine similarity of two updates (d,); NaN where one of them is zero."""
    one, other = one.double(), other.double()
    lengths = float(one.norm() * other.norm())
    return float(one @ other) / lengths if lengths > 0 else math.nan
