"""How often an element of the aggregate points where honest clients go, and where attackers go: counted and exact.

Paper: X. Wang, Dimitriadis, Koyejo, Tople, "Invariant Aggregator for Defending against Federated Backdoor Attacks",
AISTATS 2024, Theorem 10 (Section 5.2, proof in Appendix B).

Of N clients N' push one element away from where all the others' expectations point, and each of the others' elements
flips its sign with probability at most p. With N'/N <= alpha < 1/2 and tau = 1 - 2 alpha, the aggregate is to point to
the benign side with probability at least p-, and to the malicious side with probability at most p+.

Derived here. Let b of the M = N - N' honest elements keep their sign. Noise is independent between clients, so b is
binomial, Bin(M, 1 - p), and as all N' attackers vote against it the sum of signs is 2b - N. The proof's p- is
P[b >= N - alpha N], and its p+ is P[M - b >= alpha N - N' + 1] for the trimmed mean, and for the invariant aggregator
P[M - b >= (1 + tau)/2 N - N' + 1]. The paper prints sums of (1 - p)^i and p^i over the same i instead, without the
binomial coefficient and the other factor. These are no probabilities (two terms at p = 0 make 2), and the printed p+ is
below what can happen: both are in the table, as `theorem` and `printed`.

Strictness. Algorithm 1, Definition 7 and our `invariant` keep an element where the consistency is above tau, strictly;
Section 5.1 masks it where it is below. It matters here: b = N - alpha N honest votes have a consistency of exactly
tau = 1 - 2 alpha. The p- of the theorem counts that b, and so needs a mask that keeps "at least tau", while its p+
needs one that does not. With the strict mask p- is P[b >= N - alpha N + 1], less than the theorem says, and the
theorem's p+ is exact. At N = 20, N' = 4, alpha = 0.25 the strict mask asks for all 16 honest clients. Table 3 trains
CIFAR-10 with tau = 0.2 and alpha = 0.25, which is not tau = 1 - 2 alpha: `taus` puts such thresholds beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from scipy.stats import binom, norm
from torch import Tensor

from thornbed.defenses.aggregation.and_mask import and_mask
from thornbed.defenses.aggregation.fedavg import fedavg
from thornbed.defenses.aggregation.invariant import invariant
from thornbed.defenses.aggregation.trimmed_mean import trimmed_mean
from thornbed.defenses.order_statistics import least_agreement, tail_size
from thornbed.experiments.figures import Drawing
from thornbed.experiments.figures._page import DASHES, PALETTE, legend, named, page
from thornbed.experiments.runs.finished import FinishedRun
from thornbed.flower_apps.records.image_sheet import INK
from thornbed.flower_apps.settings import Resolved
from thornbed.protocol.randomness import generator

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

# Above any sum of honest elements, which are of the order of 1 (a normal deviate stays below 10).
PUSH = 1e6
STATED = "#d0d0d0"
SIDES = {"benign": "p−: towards the honest clients", "malicious": "p+: towards the attackers"}


@dataclass(frozen=True)
class Case:
    """A rule, how many elements it trims from a tail, and which |sum of signs| it keeps at least (0: any).

    The theorem's sums begin with `from_benign` votes kept and `from_malicious` votes flipped; None: it does not speak
    of the rule, or gives 0 and 1.
    """

    name: str
    rule: Callable[[Tensor, Tensor], Tensor]
    tail: int = 0
    agreement: int = 0
    from_benign: int | None = None
    from_malicious: int | None = None


@dataclass(frozen=True, kw_only=True)
class Theorem10:
    """Count over `trials` elements, at `num_points` sign-flipping probabilities up to 1/2, what the rules make of them.

    An honest element is normal with deviation 1 and the expectation that flips its sign with probability p; an
    attacker's is -1e6. Every trial is one coordinate of the updates that the house's own rules aggregate.
    `num_clients` is N, `num_malicious` N' (at least 1), `alpha` the trim level in [N'/N, 1/2); `taus` in [0, 1) are
    further thresholds of the invariant aggregator beside 1 - 2 alpha.

    The table has a row for each rule and p: for the benign side the `estimate`, the exact probability `at_least`, the
    `theorem`'s and the `printed` one, all after `p_minus_`; for the malicious side the same after `p_plus_`, with
    `at_most`. `at_least` and `at_most` hold for any size of the honest elements, and are met exactly but by the trimmed
    mean and thresholds below 1 - 2 alpha: of these elements of both signs can be left, and then the sizes decide.
    NaN where the theorem says nothing. Rates are in [0, 1].
    """

    num_clients: int = 20
    num_malicious: int = 4
    alpha: float = 0.25
    taus: tuple[float, ...] = ()
    trials: int = 50_000
    num_points: int = 20
    seed: int = 0

    needs_cells: ClassVar[bool] = False

    def __post_init__(self) -> None:
        n, attackers = self.num_clients, self.num_malicious
        if not 1 <= attackers <= self.alpha * n < n / 2:
            raise ValueError(
                f"theorem10 needs 1 <= num_malicious <= alpha * num_clients < num_clients / 2: num_malicious = "
                f"{attackers}, alpha = {self.alpha}, num_clients = {n}"
            )
        for option in ("trials", "num_points"):
            if getattr(self, option) < 1:
                raise ValueError(f"theorem10 needs {option} >= 1: {option} = {getattr(self, option)}")
        self._cases()  # which refuses thresholds and trim levels that the rules refuse

    def check(self, cells: Sequence[Resolved]) -> None:
        """Accept any cells: none is needed."""

    def draw(self, runs: Sequence[FinishedRun]) -> Drawing:
        """Return the drawing; runs play no part in it."""
        import pandas as pd

        table = pd.DataFrame([row for case in self._cases() for row in self._rows(case)])
        return Drawing(self._picture(table), {"": table})

    def _cases(self) -> list[Case]:
        n, attackers, tail = self.num_clients, self.num_malicious, tail_size("theorem10", self.alpha, self.num_clients)
        tau = 1 - 2 * self.alpha
        most = least_agreement("theorem10", tau, n)
        cases = [
            Case(
                f"invariant, τ = {tau:.3g}",
                partial(invariant, tau=tau, alpha=self.alpha),
                tail=tail,
                agreement=most,
                from_benign=n - tail,
                from_malicious=-(-(n + most) // 2) - attackers,  # (1 + tau)/2 N - N' + 1, for any N
            )
        ]
        cases += [
            Case(
                f"invariant, τ = {each:.3g}",
                partial(invariant, tau=each, alpha=self.alpha),
                tail=tail,
                agreement=least_agreement("theorem10", each, n),
            )
            for each in self.taus
        ]
        trimmed = partial(trimmed_mean, alpha=self.alpha)
        cases.append(
            Case("trimmed mean", trimmed, tail=tail, from_benign=n - tail, from_malicious=tail - attackers + 1)
        )
        cases.append(Case(f"AND-mask, τ = {tau:.3g}", partial(and_mask, tau=tau), agreement=most))
        return [*cases, Case("mean", fedavg)]

    def _rows(self, case: Case) -> Iterator[Mapping[str, Any]]:
        for point in range(1, self.num_points + 1):
            p = point / self.num_points / 2
            (minus, plus), (least, most) = self._counted(case, p, point), self.exact(case, p)
            theorem, printed = self._stated(case, p, binomial=True), self._stated(case, p, binomial=False)
            yield {
                "rule": case.name,
                "flip_probability": p,
                "p_minus_estimate": minus,
                "p_minus_at_least": least,
                "p_minus_theorem": theorem[0],
                "p_minus_printed": printed[0],
                "p_plus_estimate": plus,
                "p_plus_at_most": most,
                "p_plus_theorem": theorem[1],
                "p_plus_printed": printed[1],
            }

    def _counted(self, case: Case, p: float, point: int) -> tuple[float, float]:
        """Return the shares of trials in which the aggregate points to the benign and to the malicious side."""
        honest = self.num_clients - self.num_malicious
        updates = torch.full((self.num_clients, self.trials), -PUSH)
        noise = torch.randn(honest, self.trials, generator=generator(self.seed, "theorem10", point))
        updates[:honest] = noise + float(norm.ppf(1 - p))
        sent = case.rule(updates, torch.full((self.num_clients,), 1 / self.num_clients))
        return float((sent > 0).double().mean()), float((sent < 0).double().mean())

    def exact(self, case: Case, p: float) -> tuple[float, float]:
        """Return the least probability of the benign side and the largest of the malicious one, whatever the sizes.

        The element is benign for certain where what is left after trimming is, and no attacker is left; it can be
        malicious wherever else the mask keeps it.
        """
        n, attackers = self.num_clients, self.num_malicious
        votes = np.arange(n - attackers + 1)
        chances = binom.pmf(votes, n - attackers, 1 - p)
        kept = np.abs(2 * votes - n) >= case.agreement
        benign = kept & (n - votes <= case.tail)
        return float(chances[benign].sum()), float(chances[kept & ~benign].sum())

    def _stated(self, case: Case, p: float, *, binomial: bool) -> tuple[float, float]:
        """Return p- and p+ of the theorem, as the proof means them or as they are printed."""
        honest = self.num_clients - self.num_malicious
        if case.from_benign is None or case.from_malicious is None:
            # "p- = 0 and p+ = 1 if using the arithmetic mean estimator with or without the AND-mask"
            return (0.0, 1.0) if case.tail == 0 else (float("nan"), float("nan"))
        benign, malicious = np.arange(case.from_benign, honest + 1), np.arange(case.from_malicious, honest + 1)
        if not binomial:
            return float(((1 - p) ** benign).sum()), float((p**malicious).sum())
        return float(binom.pmf(benign, honest, 1 - p).sum()), float(binom.pmf(malicious, honest, p).sum())

    def _picture(self, table: pd.DataFrame) -> Figure:
        from matplotlib.lines import Line2D

        figure, [panels] = page([list(SIDES.values())], panel=(5.0, 3.6), sharex=True, sharey=True)
        keys = []
        for axes, side, bound in zip(panels, ("p_minus", "p_plus"), ("at_least", "at_most"), strict=True):
            for place, (name, points) in enumerate(table.groupby("rule", sort=False)):
                color, dash, x = PALETTE[place % len(PALETTE)], DASHES[place % len(DASHES)], points["flip_probability"]
                axes.plot(x, points[f"{side}_{bound}"], color=color, linestyle=dash, linewidth=1.8)
                axes.plot(x, points[f"{side}_estimate"], "o", color=color, markersize=3.6)
                if side == "p_minus":
                    keys.append(Line2D([], [], color=color, linestyle=dash, linewidth=1.8, label=str(name)))
            first = table[table["rule"] == table["rule"].iloc[0]]
            # Broad and below: it lies under other lines in places.
            axes.plot(first["flip_probability"], first[f"{side}_theorem"], color=STATED, linewidth=5, zorder=1)
            named(axes, x="probability p that an honest element flips its sign")
        panels[0].set_ylim(-0.03, 1.03)
        named(panels[0], y="probability")
        keys += [
            Line2D([], [], color=STATED, linewidth=5, label="invariant, as Theorem 10 has it"),
            Line2D([], [], color=INK, marker="o", linestyle="", markersize=3.6, label="counted; lines are bounds"),
        ]
        legend(figure, keys, columns=4)
        return figure
