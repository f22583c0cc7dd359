"""Smoothing and ablation against slow truths: one vote at a time, one set of agents at a time, certificates by hand."""

from __future__ import annotations

import itertools
import math
from statistics import NormalDist

import pytest
import torch
from scipy.stats import binom
from torch import Tensor, nn

from thornbed.defenses.autoencoder_fit import fit_autoencoder
from thornbed.defenses.fusion_head import HeadTraining
from thornbed.defenses.inference import ABSTAINS, Query, decided
from thornbed.defenses.inference._votes import count_votes, lower_bounds
from thornbed.defenses.inference.plain import Plain
from thornbed.defenses.inference.randomized_ablation import RandomizedAblation
from thornbed.defenses.inference.randomized_smoothing import RandomizedSmoothing
from thornbed.defenses.inference.randomized_smoothing_block import RandomizedSmoothingBlock
from thornbed.defenses.leverage import certify
from thornbed.defenses.purification.copur import copur

BRIEF = HeadTraining(epochs=20, hidden=(8,), learning_rate=1e-2)


def asked(features: Tensor, usable: Tensor | None = None, corrupted: Tensor | None = None) -> Query:
    """Return the query of features (n, M, d), of which all blocks are usable, or those of `usable` (M,) or (n, M)."""
    mask = torch.ones(features.shape[:2], dtype=torch.bool) if usable is None else usable.expand(features.shape[:2])
    return Query(features=features, usable=mask, corrupted=corrupted)


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Sum(nn.Module):
    """Class 1 where all numbers add up to more than zero."""

    def forward(self, features: Tensor) -> Tensor:
        total = features.flatten(1).sum(dim=1)
        return torch.stack([-total, total], dim=1)


def test_the_share_of_votes_is_the_probability_of_gaussian_noise() -> None:
    # the sum of 8 numbers with noise of deviation s is normal with deviation s sqrt(8)
    features = torch.tensor([0.05, -0.1, 0.4]).view(3, 1, 1).expand(3, 4, 2)
    found = RandomizedSmoothing(sigma=0.5, trials=20_000).predict(Sum(), asked(features), source())
    expected = [NormalDist().cdf(8 * each / (0.5 * math.sqrt(8))) for each in (0.05, -0.1, 0.4)]
    assert found.shares[:, 1].tolist() == pytest.approx(expected, abs=0.015)
    assert found.labels.tolist() == [1, 0, 1]
    # the true distance to the boundary is 8 |x| / sqrt(8); certified is less, and nearly that
    assert found.radius is not None
    for radius, each in zip(found.radius.tolist(), (0.05, 0.1, 0.4)):
        assert radius <= 8 * each / math.sqrt(8)
        assert radius == pytest.approx(8 * each / math.sqrt(8), rel=0.5)


def test_the_votes_are_those_of_copies_one_by_one() -> None:
    features = torch.randn(3, 4, 2, generator=source(1))
    found = RandomizedSmoothing(sigma=0.7, trials=40).predict(Sum(), asked(features), source(5))
    draw, votes = source(5), torch.zeros(3, 2)
    for count in (32, 8):
        for noise in torch.randn(count, 3, 4, 2, generator=draw):
            for i in range(3):
                votes[i, int(Sum()(features[i : i + 1] + 0.7 * noise[i]).argmax())] += 1
    torch.testing.assert_close(found.shares, votes / 40)


def test_the_oracle_leaves_honest_blocks_as_they_are() -> None:
    class Block(nn.Module):
        """Class 1 where the first agent's number is above zero, class 2 where another's is above 10."""

        def forward(self, features: Tensor) -> Tensor:
            first, others = features[:, 0, 0], features[:, 1:].amax(dim=(1, 2))
            return torch.stack([torch.zeros_like(first), first, others - 10], dim=1)

    features = torch.zeros(1, 4, 2)
    features[0, 0] = 0.01
    defense = RandomizedSmoothingBlock(sigma=100.0, trials=500)
    assert defense.told == {"corrupted"}
    one = defense.predict(Block(), asked(features, corrupted=torch.arange(4) == 0), source())
    assert float(one.shares[0, 2]) == 0
    assert float(one.shares[0, 1]) == pytest.approx(0.5, abs=0.1)
    nobody = defense.predict(Block(), asked(features, corrupted=torch.zeros(4, dtype=torch.bool)), source())
    assert nobody.shares.tolist() == [[0, 1, 0]]
    assert nobody.radius is None
    with pytest.raises(ValueError, match="must be told who is corrupted, and the query does not say"):
        defense.predict(Block(), asked(features), source())


@pytest.mark.parametrize(("votes", "expected"), [([100, 0], 0.001 / 2), ([0, 7], 0.001 / 2)])
def test_of_votes_that_all_agree_the_bound_is_known(votes, expected) -> None:
    # p^n = alpha / C
    assert float(lower_bounds(torch.tensor([votes]), sum(votes), 0.001)) == pytest.approx(expected ** (1 / sum(votes)))


def test_a_trial_without_a_finite_answer_counts_against_the_bound() -> None:
    class Half(nn.Module):
        """Class 1, and no number where the first agent's first number, or whether it is there, is above a half."""

        centre = torch.zeros(12, 1)

        def get_buffer(self, target: str) -> Tensor:
            return self.centre

        def forward(self, features: Tensor) -> Tensor:
            logits = torch.tensor([0.0, 1.0]).expand(len(features), 2)
            return torch.where(features[:, 0, -1:] > 0.5, torch.nan, logits)

    lost, other = (lower_bounds(torch.tensor([votes]), 100, 0.001) for votes in ([60, 0], [60, 40]))
    assert float(lost) == float(other)
    assert float(binom.sf(59, 100, float(lost))) == pytest.approx(0.001 / 2)  # 60 or more of 100 are that unlikely
    features = torch.full((1, 12, 1), 0.5)  # so that half of the noise goes above it
    smoothed = RandomizedSmoothing(sigma=1.0, trials=300).predict(Half(), asked(features), source())
    assert (smoothed.labels.tolist(), smoothed.radius.tolist()) == ([1], [0.0])
    assert float(smoothed.shares[0, 1]) == pytest.approx(0.5, abs=0.1)
    # of 924 choices of six of twelve half have the first agent
    ablated = RandomizedAblation(keep=6, trials=300).predict(Half(), asked(features), source())
    assert (ablated.labels.tolist(), ablated.tolerated.tolist()) == ([1], [-1])


def test_smoothing_on_purified_features_certifies_against_a_liar() -> None:
    """The whole chain of Theorem 4: a radius for the features, and a label that does not change within it."""
    draw = source(1)
    rows = torch.randn(200, 1, 2, generator=draw, dtype=torch.float64).repeat(1, 7, 1)
    rows = rows + 0.01 * torch.randn(rows.shape, generator=draw, dtype=torch.float64)
    labels = (rows[:, 0, 0] > 0).long()
    manifold, observed = fit_autoencoder(rows, source(), bottleneck=2).autoencoder, torch.ones(7, dtype=torch.bool)
    certificate = certify(manifold.last_layer()[0], observed, source())
    smoothing = RandomizedSmoothing(sigma=0.5, trials=300)
    head = smoothing.fit(manifold(rows), labels, 2, source(), HeadTraining(epochs=20)).head
    sent = rows[:40].clone()
    sent[:, 3] = -1e3 * sent[:, 3]
    options = {"solver": "reweighted", "penalty_steps": 0}
    attacked = smoothing.predict(head, asked(copur(sent, observed, manifold, **options).features), source())
    truth = smoothing.predict(head, asked(manifold(rows[:40])), source())
    deltas = (manifold(rows[:40]) - rows[:40]).norm(dim=2).sum(dim=1).tolist()
    certified = torch.tensor([certificate.radius(delta, 1) for delta in deltas]) <= truth.radius
    assert float(certified.double().mean()) > 0.4
    assert torch.equal(attacked.labels[certified], truth.labels[certified])


def table(n: int = 300) -> tuple[Tensor, Tensor]:
    """Five agents, three classes; each agent sees the class through noise."""
    labels = torch.arange(n) % 3
    signal = torch.nn.functional.one_hot(labels, 3).float()[:, None].expand(-1, 5, -1)
    return signal + 0.3 * torch.randn(n, 5, 3, generator=source(3)), labels


@pytest.mark.parametrize("observed", [torch.ones(5, dtype=torch.bool), torch.tensor([True, True, False, True, True])])
def test_all_choices_of_agents_vote_once(observed) -> None:
    features, labels = table()
    defense = RandomizedAblation(keep=2)
    head = defense.fit(features, labels, 3, source(), BRIEF).head
    queries = features[:9].clone()
    queries[:, ~observed] = 1e6  # who is not observed has no vote
    found = defense.predict(head, asked(queries, observed), source())
    votes = torch.zeros(9, 3)
    for pair in itertools.combinations(observed.nonzero()[:, 0].tolist(), 2):
        for i in range(9):
            given = torch.zeros(1, 5, 4)
            for agent in pair:
                given[0, agent, :3] = queries[i, agent] - features[:, agent].mean(dim=0)
                given[0, agent, 3] = 1
            votes[i, int(head(given).argmax())] += 1
    torch.testing.assert_close(found.shares, votes / votes.sum(dim=1, keepdim=True))
    assert float((found.labels == labels[:9]).float().mean()) > 0.8


def test_no_liars_within_the_certificate_change_the_label_whatever_they_send() -> None:
    features, labels = table()
    defense = RandomizedAblation(keep=1)
    head = defense.fit(features, labels, 3, source(), BRIEF).head
    queries = features[:30]
    honest = defense.predict(head, asked(queries), source())
    assert honest.tolerated is not None
    assert set(honest.tolerated.tolist()) >= {2}  # five votes to none: two liars leave three to two
    draw = source(9)
    for _ in range(20):
        for i in range(30):
            liars = torch.randperm(5, generator=draw)[: max(int(honest.tolerated[i]), 0)]
            sent = queries[i : i + 1].clone()
            sent[0, liars] = 100 * torch.randn(len(liars), 3, generator=draw)
            label = defense.predict(head, asked(sent), source()).labels
            assert int(honest.tolerated[i]) < 0 or int(label) == int(honest.labels[i])
    # and three liars can: all of them send what looks like the next class
    sure = int((honest.tolerated == 2).nonzero()[0])
    sent = queries[sure : sure + 1].clone()
    sent[0, :3] = 5 * torch.nn.functional.one_hot((honest.labels[sure] + 1) % 3, 3).float()
    changed = defense.predict(head, asked(sent), source())
    assert int(changed.labels) != int(honest.labels[sure])


def test_random_choices_come_near_all_of_them_and_certify_less() -> None:
    features, labels = table()
    features = features + 0.5 * torch.randn(features.shape, generator=source(4))
    whole, few = RandomizedAblation(keep=2), RandomizedAblation(keep=2, trials=9)
    head = whole.fit(features, labels, 3, source(), BRIEF).head
    query = asked(features[:50])
    one, other = whole.predict(head, query, source()), few.predict(head, query, source())
    assert float((one.labels == other.labels).float().mean()) > 0.8
    assert bool((other.tolerated <= one.tolerated).all())
    assert float((one.shares - other.shares).abs().max()) > 0


def test_what_is_not_finite_is_not_answered() -> None:
    features = torch.ones(3, 4, 2)
    features[1, 0, 0] = math.nan
    for defense in (Plain(), RandomizedSmoothing(trials=5)):
        found = defense.predict(Sum(), asked(features), source())
        assert found.labels.tolist() == [1, ABSTAINS, 1]
        assert bool(found.shares[1].isnan().all())


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: RandomizedSmoothing(sigma=0.0), r"randomized_smoothing needs a finite sigma > 0: sigma = 0\.0"),
        (lambda: RandomizedSmoothing(trials=0), "randomized_smoothing needs 1 <= trials <= 10000000: trials = 0"),
        (lambda: RandomizedSmoothing(alpha=1.0), r"randomized_smoothing needs 0 < alpha < 1: alpha = 1\.0"),
        (lambda: RandomizedAblation(keep=0), "randomized_ablation needs keep >= 1: keep = 0"),
        (lambda: RandomizedAblation(trials=0), "randomized_ablation needs 1 <= trials <= 10000000: trials = 0"),
    ],
)
def test_options_out_of_range_are_refused(make, sentence) -> None:
    with pytest.raises(ValueError, match=sentence):
        make()


@pytest.mark.parametrize("trials", [1000, 5])
def test_a_block_that_is_not_usable_counts_in_its_query_as_that_of_a_silent_agent(trials) -> None:
    features, labels = table()
    defense = RandomizedAblation(keep=2, trials=trials)
    head = defense.fit(features, labels, 3, source(), BRIEF).head
    queries, usable = features[:9].clone(), torch.ones(9, 5, dtype=torch.bool)
    usable[3:, 2] = False
    usable[6:, 4] = False
    queries[~usable] = 1e6  # whatever stands in their place
    found, draw = defense.predict(head, asked(queries, usable), source(1)), source(1)
    assert found.tolerated is not None
    for start in (6, 3, 0):  # each set of agents as a run of its own where the others never came, in the sets' order
        rows = slice(start, start + 3)
        alone = defense.predict(head, asked(queries[rows], usable[start]), draw)
        assert torch.equal(found.shares[rows], alone.shares)
        assert torch.equal(found.tolerated[rows], alone.tolerated)
    if trials == 1000:  # 10, 6 and 3 choices: shares are multiples of what one of them is
        for start, choices in zip((0, 3, 6), (10, 6, 3)):
            votes = found.shares[start : start + 3] * choices
            torch.testing.assert_close(votes, votes.round())


def test_liars_within_the_certificate_who_fall_silent_instead_do_not_change_the_label_either() -> None:
    features, labels = table()
    defense = RandomizedAblation(keep=2)
    head = defense.fit(features + 0.5 * torch.randn(300, 5, 3, generator=source(4)), labels, 3, source(), BRIEF).head
    honest = defense.predict(head, asked(features), source())
    assert honest.tolerated is not None
    assert int(honest.tolerated.max()) == 1  # ten votes to none: a liar is in four of ten choices, two are in seven
    for silent in range(5):
        left = defense.predict(head, asked(features, torch.arange(5) != silent), source())
        sure = honest.tolerated >= 1
        assert torch.equal(left.labels[sure], honest.labels[sure])


def test_a_query_of_fewer_agents_than_are_kept_is_not_answered_and_others_are() -> None:
    features, labels = table(30)
    defense = RandomizedAblation(keep=3)
    head = defense.fit(features, labels, 3, source(), BRIEF).head
    usable = torch.ones(30, 5, dtype=torch.bool)
    usable[4, 2:] = False  # two are left
    usable[5, 3:] = False  # three are
    found = defense.predict(head, asked(features, usable), source())
    assert found.tolerated is not None
    assert (found.labels == ABSTAINS).nonzero().tolist() == [[4]]
    assert bool(found.shares[4].isnan().all())
    assert int(found.tolerated[4]) == -1
    nobody = defense.predict(head, asked(features, torch.arange(5) < 2), source())
    assert set(nobody.labels.tolist()) == {ABSTAINS}
    with pytest.raises(ValueError, match="randomized_ablation needs keep <= agents: keep = 6, agents = 5"):
        RandomizedAblation(keep=6).fit(features, labels, 3, source(), BRIEF)


def test_what_overflows_is_no_answer() -> None:
    nan = torch.nan
    shares = torch.tensor([[nan, nan], [0.0, 0.0], [0.2, 0.8], [0.9, 0.1]])
    found = decided(shares, torch.tensor([True, True, True, False]))
    assert found.labels.tolist() == [ABSTAINS, ABSTAINS, 1, ABSTAINS]
    copies = torch.tensor([[[[1.0]], [[nan]]], [[[-1.0]], [[2.0]]]])  # two copies of two queries
    votes = count_votes(nn.Sequential(nn.Flatten(), nn.Linear(1, 2)), [copies])
    assert votes.sum(dim=1).tolist() == [2, 1]


@pytest.mark.parametrize(
    ("votes", "tolerated"),
    [([3, 1, 1], 0), ([4, 1, 0], 1), ([5, 0, 0], 2), ([2, 2, 1], -1), ([1, 4, 0], 1)],
)
def test_liars_by_hand(votes, tolerated) -> None:
    """Five agents vote one by one: a liar moves one vote from the first to the second, and a tie decides nothing."""
    defense = RandomizedAblation(keep=1)
    found = defense._tolerated(torch.tensor([votes]), trials=5, agents=5, whole=True)
    assert found.tolist() == [tolerated]


def test_liars_of_drawn_choices_by_hand() -> None:
    """Of 45 pairs of ten agents 9 hold one liar and 17 two; 1000 votes of 1000 are 99.3 % in all but one of 1000."""
    defense = RandomizedAblation(keep=2, trials=1000, alpha=0.001)
    bound = float(lower_bounds(torch.tensor([[1000, 0]]), 1000, 0.001))
    assert [bound - touched / 45 > 0.5 for touched in (9, 17, 24)] == [True, True, False]
    found = defense._tolerated(torch.tensor([[1000, 0], [700, 300], [480, 520]]), trials=1000, agents=10, whole=False)
    assert found[0].item() == 2
    assert found[1].item() == 0  # 65 % at least: above a half by less than a fifth
    assert found[2].item() == -1


def test_of_drawn_choices_a_half_is_no_majority(monkeypatch) -> None:
    """Of four agents one liar is in a quarter of the choices: three quarters less that quarter are a half."""
    monkeypatch.setattr("thornbed.defenses.inference.randomized_ablation.lower_bounds", lambda *given: bounds)
    bounds = torch.tensor([0.75, 0.7500001], dtype=torch.float64)
    votes = torch.tensor([[90, 10], [90, 10]])
    found = RandomizedAblation(keep=1)._tolerated(votes, trials=100, agents=4, whole=False)
    assert found.tolist() == [0, 1]
