import numpy as np
import pytest
import torch

from thornbed.defenses.aggregation.fedavg import fedavg
from thornbed.defenses.aggregation.fltrust import fltrust
from thornbed.defenses.reporting import did_something, listening
from thornbed.defenses.server import Server


def server(n, root):
    return Server(clients=range(n), generator=torch.Generator(), root_update=lambda num_samples: torch.as_tensor(root))


def equal(n):
    return torch.full((n,), 1 / n)


def test_by_hand():
    updates = torch.tensor([[1.0, 0.0], [0.0, 5.0], [-3.0, 0.0], [3.0, 4.0]])
    with listening() as figures:
        result = fltrust(updates, equal(4), server(4, [2.0, 0.0]))
    # Trust 1, 0, 0, 0.6; of length 2 the trusted are (2, 0) and (1.2, 1.6).
    assert result.tolist() == pytest.approx([1.7, 0.6])
    shares = {"distrusted_share": 0.5, "withheld_share": pytest.approx(0.6)}
    assert figures == {"trust_scores": pytest.approx([1, 0, 0, 0.6]), **shares}


def test_it_acts_where_it_trusts_everybody_a_little():
    with listening() as figures:
        fltrust(torch.tensor([[1.0, 1.0], [1.0, 0.0]]), equal(2), server(2, [1.0, 0.0]))
    assert figures["distrusted_share"] == 0
    assert did_something(figures, 2) is True


@pytest.mark.parametrize(("n", "d"), [(1, 3), (4, 1), (9, 700), (20, 1030)])
def test_against_float64(n, d):
    generator = torch.Generator().manual_seed(n)
    root, updates = torch.randn(d, generator=generator), torch.randn(n, d, generator=generator)
    updates += 0.3 * root
    updates[0] = root
    g, total, step = root.double().numpy(), 0.0, np.zeros(d)
    for row in updates.double().numpy():
        cosine = (row * g).sum() / ((row * row).sum() ** 0.5 * (g * g).sum() ** 0.5)
        if cosine > 0:
            total += cosine
            step += cosine * row * ((g * g).sum() / (row * row).sum()) ** 0.5
    result = fltrust(updates, equal(n), server(n, root))
    np.testing.assert_allclose(result.numpy(), step / total, rtol=1e-6, atol=1e-7)


def test_the_length_of_an_update_buys_nothing():
    updates = torch.randn(5, 30, generator=torch.Generator().manual_seed(0)) + 1
    louder = updates * torch.tensor([1e-3, 1.0, 1e5, 1e30, 7.0])[:, None]
    root = server(5, torch.ones(30))
    torch.testing.assert_close(fltrust(louder, equal(5), root), fltrust(updates, equal(5), root))


def test_it_trains_on_as_many_trusted_samples_as_it_is_told():
    asked = []

    def root_update(num_samples):
        asked.append(num_samples)
        return torch.ones(4)

    given = Server(clients=range(3), generator=torch.Generator(), root_update=root_update)
    fltrust(torch.ones(3, 4), equal(3), given)
    fltrust(torch.ones(3, 4), equal(3), given, num_root=7)
    assert asked == [100, 7]


def test_it_is_not_fedavg_in_disguise():
    """Regression: a server whose own update was never set ran FedAvg. Here it refuses, and what it did can be read."""
    updates = torch.randn(10, 40, generator=torch.Generator().manual_seed(1)) + 1
    updates[6:] *= -1
    with pytest.raises(ValueError, match="this server has no trusted data to train on: 100 samples were asked for"):
        fltrust(updates, equal(10), Server(clients=range(10), generator=torch.Generator()))
    with listening() as figures:
        result = fltrust(updates, equal(10), server(10, torch.ones(40)))
    assert figures["distrusted_share"] == 0.4
    assert did_something(figures, 10)
    assert figures["trust_scores"][6:] == [0.0] * 4
    assert len({score for score in figures["trust_scores"] if score > 0}) == 6
    assert float(result.sum()) > 2 * float(fedavg(updates, equal(10)).sum())  # along the root update


@pytest.mark.parametrize(
    ("updates", "root"),
    [
        ([[-1.0, 0.0], [-1.0, -1.0]], [1.0, 0.0]),  # everybody walks away from it
        ([[0.0, 0.0], [0.0, 0.0]], [1.0, 0.0]),
        ([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0]),  # the server has nothing to say
    ],
)
def test_where_nobody_is_trusted_there_is_no_step(updates, root):
    with listening() as figures:
        result = fltrust(torch.tensor(updates), equal(2), server(2, root))
    assert result.tolist() == [0.0, 0.0]
    assert figures == {"trust_scores": [0.0, 0.0], "distrusted_share": 1.0, "withheld_share": 1.0}


@pytest.mark.parametrize(
    ("root", "options", "message"),
    [
        ([1.0, 0.0], {"num_root": 0}, "fltrust needs num_root >= 1: num_root = 0"),
        ([1.0], {}, r"fltrust needs a root update of shape \[2\]: got \[1\]"),
        ([1.0, float("nan")], {}, "fltrust needs a finite root update: 1 of 2 are not"),
    ],
)
def test_refusals(root, options, message):
    with pytest.raises(ValueError, match=message):
        fltrust(torch.zeros(5, 2), equal(5), server(5, root), **options)


def test_the_length_of_a_float64_root_update_is_not_rounded():
    root = torch.tensor([1 + 1e-9, 0.0], dtype=torch.float64)
    result = fltrust(torch.tensor([[2.0, 0.0]], dtype=torch.float64), equal(1), server(1, root))
    assert result.tolist() == pytest.approx([1 + 1e-9, 0.0], rel=1e-15)


def test_a_root_update_beyond_the_range_of_float32_is_refused():
    with pytest.raises(ValueError, match=r"finite root update: 1 of 2 are not, or lie beyond 3\.40282e\+38"):
        fltrust(torch.ones(1, 2).double(), equal(1), server(1, torch.tensor([1e39, 0.0], dtype=torch.float64)))
