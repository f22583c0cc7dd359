import numpy as np
import pytest
import torch

from thornbed.defenses.aggregation.sparse_fed import sparse_fed
from thornbed.defenses.reporting import listening
from thornbed.defenses.server import Server


def server(n, memory):
    return Server(clients=range(n), generator=torch.Generator(), memory=memory)


def equal(n):
    return torch.full((n,), 1 / n)


def test_by_hand_over_three_rounds():
    memory = {}
    rounds = [
        # update            step              momentum          error, both 0 where the step was taken
        ([4.0, 2.0, 1.0], [4.0, 0.0, 0.0], [0.0, 2.0, 1.0], [0.0, 2.0, 1.0]),
        ([4.0, 2.0, 1.0], [0.0, 5.0, 0.0], [4.0, 0.0, 1.5], [4.0, 0.0, 2.5]),
        ([0.0, 0.0, 0.0], [6.0, 0.0, 0.0], [0.0, 0.0, 0.75], [0.0, 0.0, 3.25]),
    ]
    for update, step, momentum, error in rounds:
        with listening() as figures:
            result = sparse_fed(
                torch.tensor([update]), equal(1), server(1, memory), top_k=1 / 3, momentum=0.5, norm=9.0
            )
        assert result.tolist() == step
        assert {name: tensor.tolist() for name, tensor in memory.items()} == {"momentum": momentum, "error": error}
        assert figures == {"masked_share": pytest.approx(2 / 3), "clipped_share": 0.0}


def test_updates_are_clipped_before_they_are_averaged():
    updates = torch.tensor([[30.0, 40.0], [0.0, 1.0]])
    with listening() as figures:
        result = sparse_fed(updates, equal(2), server(2, {}), top_k=1.0, norm=5.0)
    assert result.tolist() == [1.5, 2.5]
    assert figures == {"masked_share": 0.0, "clipped_share": 0.5}


@pytest.mark.parametrize(
    ("top_k", "taken"), [(0.01, [0]), (0.25, [0]), (0.5, [0, 1]), (0.7, [0, 1, 2]), (1.0, [0, 1, 2, 3])]
)
def test_of_coordinates_of_one_size_the_first_are_taken(top_k, taken):
    result = sparse_fed(torch.tensor([[2.0, -2.0, 2.0, 2.0]]), equal(1), server(1, {}), top_k=top_k)
    assert result.nonzero().flatten().tolist() == taken


def test_against_float64_over_rounds():
    n, d, top_k, momentum, norm = 6, 97, 0.2, 0.9, 4.0
    generator = torch.Generator().manual_seed(3)
    memory, velocity, error = {}, [0.0] * d, [0.0] * d
    for _ in range(8):
        updates = torch.randn(n, d, generator=generator)
        mean = [0.0] * d
        for row in updates.tolist():
            length = sum(value * value for value in row) ** 0.5
            mean = [total + value * min(1.0, norm / length) / n for total, value in zip(mean, row, strict=True)]
        velocity = [momentum * old + new for old, new in zip(velocity, mean, strict=True)]
        error = [old + new for old, new in zip(error, velocity, strict=True)]
        largest = sorted(range(d), key=lambda k: -abs(error[k]))[: round(top_k * d)]
        step = [error[k] if k in largest else 0.0 for k in range(d)]
        velocity = [0.0 if k in largest else velocity[k] for k in range(d)]
        error = [0.0 if k in largest else error[k] for k in range(d)]
        result = sparse_fed(updates, equal(n), server(n, memory), top_k=top_k, momentum=momentum, norm=norm)
        np.testing.assert_allclose(result.numpy(), step, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(memory["momentum"].numpy(), velocity, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(memory["error"].numpy(), error, rtol=1e-5, atol=1e-6)


def test_without_momentum_nothing_is_lost_and_nothing_gained():
    generator, memory = torch.Generator().manual_seed(4), {}
    walked, meant = torch.zeros(50), torch.zeros(50)
    for _ in range(10):
        update = torch.randn(1, 50, generator=generator)
        meant += update[0]
        walked += sparse_fed(update, equal(1), server(1, memory), momentum=0.0)
    torch.testing.assert_close(walked + memory["error"], meant)
    assert float(memory["error"].abs().max()) > 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 0.0}, "sparse_fed needs 0 < top_k <= 1: top_k = 0.0"),
        ({"top_k": 50}, "sparse_fed needs 0 < top_k <= 1: top_k = 50"),
        ({"momentum": 1.0}, "sparse_fed needs 0 <= momentum < 1: momentum = 1.0"),
        ({"norm": -1.0}, "sparse_fed needs a finite norm > 0: n = 5, norm = -1.0"),
    ],
)
def test_refusals_leave_the_memory_alone(options, message):
    memory = {}
    with pytest.raises(ValueError, match=message):
        sparse_fed(torch.zeros(5, 2), equal(5), server(5, memory), **options)
    assert memory == {}


def test_what_waits_in_float64_is_not_rounded():
    memory = {}
    update = torch.tensor([[3.0, 1 + 1e-9]], dtype=torch.float64)
    for step in ([3.0, 0.0], [0.0, 2.1 + 2.1e-9]):  # 1 that waited, 0.1 of it and 1 that is new; the 3 of now waits
        result = sparse_fed(update, equal(1), server(1, memory), top_k=0.5, momentum=0.1, norm=9.0)
        torch.testing.assert_close(result, torch.tensor(step, dtype=torch.float64), rtol=1e-14, atol=0)
        update = torch.tensor([[1.0, 1 + 1e-9]], dtype=torch.float64)
