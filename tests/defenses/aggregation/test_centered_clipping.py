import numpy as np
import pytest
import torch

from thornbed.defenses.aggregation.centered_clipping import centered_clipping
from thornbed.defenses.reporting import listening
from thornbed.defenses.server import Server


def server(n, memory):
    return Server(clients=range(n), generator=torch.Generator(), memory=memory)


def equal(n):
    return torch.full((n,), 1 / n)


def test_by_hand_over_two_rounds():
    updates, memory = torch.tensor([[0.0], [1.0], [10.0]]), {}
    # From 0 the clipped differences are 0, 1, 2; from 1 they are -1, 0, 2.
    for expected in (1.0, 4 / 3):
        with listening() as figures:
            result = centered_clipping(updates, equal(3), server(3, memory), radius=2.0)
        assert result.item() == pytest.approx(expected)
        assert memory["centre"].tolist() == result.tolist()
        assert figures == {"clipped_share": pytest.approx(1 / 3)}


def test_two_iterations_are_two_rounds_of_the_same_updates():
    updates, memory = torch.randn(6, 50, generator=torch.Generator().manual_seed(0)), {}
    twice = centered_clipping(updates, equal(6), server(6, {}), radius=3.0, num_iterations=2)
    for _ in range(2):
        last = centered_clipping(updates, equal(6), server(6, memory), radius=3.0)
    assert torch.equal(twice, last)


def test_the_norm_is_that_of_the_whole_difference():
    result = centered_clipping(torch.tensor([[3.0, 4.0]]), equal(1), server(1, {}), radius=1.0)
    assert result.tolist() == pytest.approx([0.6, 0.8])


def test_a_radius_that_is_not_given_is_the_median_of_the_distances_from_the_centre():
    updates, memory = torch.tensor([[0.0], [1.0], [10.0]]), {}
    assert centered_clipping(updates, equal(3), server(3, memory)).item() == pytest.approx(2 / 3)
    # From 2/3 the distances are 2/3, 1/3, 28/3, and the clipped differences -2/3, 1/3, 2/3.
    assert centered_clipping(updates, equal(3), server(3, memory)).item() == pytest.approx(2 / 3 + 1 / 9)


@pytest.mark.parametrize("radius", [0.8, None])
def test_against_float64_over_rounds(radius):
    generator, memory, v = torch.Generator().manual_seed(2), {}, np.zeros(120)
    for n in (3, 4, 9, 20):
        updates = 0.1 * torch.randn(n, 120, generator=generator) + 0.1
        for _ in range(3):
            distances = [float(((row - v) ** 2).sum() ** 0.5) for row in updates.double().numpy()]
            most = float(np.median(distances)) if radius is None else radius
            moves = [row - v for row in updates.double().numpy()]
            v = v + sum(move * min(1.0, most / far) for move, far in zip(moves, distances, strict=True)) / n
        with listening() as figures:
            result = centered_clipping(updates, equal(n), server(n, memory), radius=radius, num_iterations=3)
        np.testing.assert_allclose(result.numpy(), v, rtol=1e-5, atol=1e-6)
        assert figures["clipped_share"] == pytest.approx(sum(far > most for far in distances) / n)


@pytest.mark.parametrize("size", [1e3, 1e30])
def test_over_rounds_it_settles_where_the_pull_of_the_attackers_ends(size):
    """Four honest clients at g and an attacker of any size: v rests where 4 |v - g| = radius."""
    honest, memory = torch.tensor([[6.0, 8.0]]).expand(4, 2), {}
    updates = torch.cat([honest, torch.tensor([[-size, 0.0]])])
    for _ in range(60):
        result = centered_clipping(updates, equal(5), server(5, memory), radius=1.0)
    assert float((result - honest[0]).norm()) == pytest.approx(0.25, rel=0.01)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"radius": 0.0}, "centered_clipping needs a finite radius > 0: n = 5, radius = 0.0"),
        ({"radius": float("nan")}, "centered_clipping needs a finite radius > 0: n = 5, radius = nan"),
        ({"num_iterations": 0}, "centered_clipping needs num_iterations >= 1: num_iterations = 0"),
    ],
)
def test_refusals_leave_the_memory_alone(options, message):
    memory = {}
    with pytest.raises(ValueError, match=message):
        centered_clipping(torch.zeros(5, 2), equal(5), server(5, memory), **options)
    assert memory == {}
