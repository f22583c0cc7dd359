"""Where other rules fail and the invariant aggregator does not: Section 4.2 of its paper, in numbers.

Wang, Dimitriadis, Koyejo and Tople, AISTATS 2024. Updates are -g, and both statements are the same for -g as for g.
"""

import math

import numpy as np
import pytest
import torch

from thornbed.defenses.aggregation.fltrust import fltrust
from thornbed.defenses.aggregation.invariant import invariant
from thornbed.defenses.aggregation.median import median
from thornbed.defenses.aggregation.trimmed_mean import trimmed_mean
from thornbed.defenses.reporting import listening
from thornbed.defenses.server import Server

# Figure 3 is above zero from here: 0.3918 pi, where the proposition says 0.4 pi.
TURNING_POINT = math.acos(1 / 3)


def advantage(theta, others):
    """Return cos(theta') cos(pi - theta - theta') - cos(theta), Equation 1 of Appendix B."""
    return np.cos(others) * np.cos(np.pi - theta - others) - np.cos(theta)


def trusted_step(theta, other):
    """Return FLTrust's step for a benign gradient at theta from the axis of coordinate 0 and a malicious one."""
    benign = torch.tensor([math.cos(theta), math.sin(theta)], dtype=torch.float64)
    malicious = torch.tensor([-math.cos(other), math.sin(other)], dtype=torch.float64)
    updates = -torch.stack([benign, malicious]).float()
    server = Server(clients=range(2), generator=torch.Generator(), root_update=lambda num_samples: -benign.float())
    return fltrust(updates, torch.tensor([0.5, 0.5]), server)


def test_proposition_5_by_hand():
    """At theta = 0.4 pi the attacker stands at 0.3 pi: it is trusted by cos(0.3 pi) = 0.588, and leads coordinate 0."""
    theta, other = 0.4 * math.pi, 0.3 * math.pi
    with listening() as figures:
        step = trusted_step(theta, other)
    trust = math.cos(0.3 * math.pi)
    assert figures["trust_scores"] == pytest.approx([1.0, trust])
    led = (trust * math.cos(other) - math.cos(theta)) / (1 + trust)  # 0.0230, where -g has -0.309
    assert led == pytest.approx(0.0230, abs=1e-4)
    assert step.tolist() == pytest.approx([led, -(math.sin(theta) + trust * math.sin(other)) / (1 + trust)], rel=1e-5)


@pytest.mark.parametrize("share", [0.4, 0.42, 0.45, 0.49, 0.4999])
def test_proposition_5_holds_from_0_4_pi_on(share):
    theta = share * math.pi
    other = (math.pi - theta) / 2
    malicious, trust = -math.cos(other), math.cos(math.pi - theta - other)
    assert abs(malicious) * trust > math.cos(theta)
    assert malicious * (malicious * trust + math.cos(theta)) > 0
    assert trusted_step(theta, other)[0] > 0  # benign updates are -cos(theta) < 0 there


def test_figure_3_is_positive_from_arccos_one_third_on():
    """The maximum has a closed form, though the paper doubts one: (1 - 3 cos(theta)) / 2, at theta' = (pi - theta) / 2.

    cos(a) cos(b) = (cos(a + b) + cos(a - b)) / 2 with a + b = pi - theta is largest at a = b. So it is positive exactly
    where cos(theta) < 1/3, that is theta > 0.3918 pi, and the proposition's 0.4 pi is on the safe side.
    """
    others = np.linspace(0, np.pi / 2, 20_001)
    for theta in np.linspace(0, np.pi / 2, 201):
        assert advantage(theta, others).max() == pytest.approx((1 - 3 * np.cos(theta)) / 2, abs=1e-7)
        assert others[advantage(theta, others).argmax()] == pytest.approx((np.pi - theta) / 2, abs=1e-4)
    assert TURNING_POINT / math.pi == pytest.approx(0.39183, abs=1e-5)
    assert advantage(TURNING_POINT - 1e-6, others).max() < 0 < advantage(TURNING_POINT + 1e-6, others).max()


def test_below_that_angle_no_malicious_gradient_leads_fltrust():
    for other in np.linspace(0, math.pi / 2, 91):
        assert trusted_step(TURNING_POINT - 0.01, other)[0] < 0
    assert any(trusted_step(TURNING_POINT + 0.01, other)[0] > 0 for other in np.linspace(0, math.pi / 2, 91))


def seven(benign, flipped, malicious):
    return torch.tensor([*benign, *flipped, *malicious]).reshape(7, 1), torch.full((7,), 1 / 7)


@pytest.mark.parametrize(
    ("benign", "flipped", "malicious"),
    [
        ([-0.3, -0.2, -0.1], [0.05, 0.1], [0.5, 0.5]),
        ([-0.3, -0.2, -0.1], [0.05, 0.1, 0.2], [1e6]),
    ],
    ids=["two attackers", "one attacker"],
)
def test_figure_2b_the_median_is_misled_and_invariant_takes_no_step(benign, flipped, malicious):
    """Seven clients: the attackers and a few benign gradients that noise flipped are four, the other benign ones three.

    |sum of signs| / 7 = 1/7, which is not above tau = 1/7. "Our invariant aggregator will not take any steps along
    malicious gradients due to reduced sign consistency if tau >= 1/7" (below Theorem 10).
    """
    updates, weights = seven(benign, flipped, malicious)
    assert abs(int(updates.sign().sum())) == 1
    assert sum(benign) + sum(flipped) < 0  # what the benign clients mean
    assert median(updates, weights).item() == pytest.approx(0.05)  # the attacker's side
    assert trimmed_mean(updates, weights, alpha=2 / 7).item() > 0
    for tau in (1 / 7, 0.2, 0.5):
        with listening() as figures:
            assert invariant(updates, weights, tau=tau, alpha=2 / 7).item() == 0.0
        assert figures["masked_share"] == 1.0
    assert invariant(updates, weights, tau=1 / 7 - 1e-6, alpha=2 / 7).item() > 0  # and that bound is sharp


def test_one_more_flipped_gradient_misleads_invariant_too():
    """What the paper does not promise: at five of seven the consistency is 3/7, and tau = 0.2 lets it pass."""
    updates, weights = seven([-0.3, -0.2], [0.05, 0.1, 0.1], [0.5, 0.5])
    assert invariant(updates, weights, tau=0.2, alpha=2 / 7).item() > 0
    assert invariant(updates, weights, tau=3 / 7, alpha=2 / 7).item() == 0.0
