import math

import numpy as np
import pytest
import torch

from thornbed.defenses.aggregation.foolsgold import foolsgold, learning_rates
from thornbed.defenses.reporting import listening
from thornbed.defenses.server import Server


def server(clients, memory=None):
    return Server(clients=clients, generator=torch.Generator(), memory={} if memory is None else memory)


def equal(n):
    return torch.full((n,), 1 / n)


def symmetric(one_two, one_three, two_three):
    return np.array([[1, one_two, one_three], [one_two, 1, two_three], [one_three, two_three, 1.0]])


@pytest.mark.parametrize(
    ("cosines", "confidence", "rates"),
    [
        (symmetric(1.0, 0.0, 0.0), 1.0, [0, 0, 1]),
        (symmetric(1.0, 0.5, 0.5), 1.0, [0, 0, 1]),  # the third is pardoned: 0.5 * 0.5 / 1, which leaves 0.75
        # 0.4, 0.4 and, pardoned, 1 - 0.4 * 0.4 / 0.6; the logit of their ratio 6/11 is ln(6/5) + 1/2.
        (symmetric(0.6, 0.4, 0.0), 1.0, [math.log(1.2) + 0.5, math.log(1.2) + 0.5, 1]),
        (symmetric(0.6, 0.4, 0.0), 0.5, [(math.log(1.2) + 0.5) / 2, (math.log(1.2) + 0.5) / 2, 1]),
        (symmetric(0.6, 0.4, 0.0), 2.0, [1, 1, 1]),
        (symmetric(0.0, 0.0, 0.0), 1.0, [1, 1, 1]),
        (symmetric(1.0, 1.0, 1.0), 1.0, [0, 0, 0]),
        # Read to the letter, pardoning would multiply -0.5 by -0.5 / 0.1 and stop the client that repeats nobody.
        (symmetric(-0.5, -0.5, 0.1), 1.0, [1, 1, 1]),
    ],
)
def test_learning_rates_by_hand(cosines, confidence, rates):
    assert learning_rates(cosines, confidence).tolist() == pytest.approx(rates)


def test_sybils_that_look_different_in_each_round_are_known_by_what_they_sent_so_far():
    memory = {}
    first = torch.tensor([[1.0, 1.0, 0.0], [1.0, -1.0, 0.0], [0.0, 0.0, 3.0]])
    with listening() as figures:
        result = foolsgold(first, equal(3), server([7, 4, 9], memory))
    assert figures == {"learning_rates": [1, 1, 1], "slowed_share": 0.0}
    assert result.tolist() == pytest.approx([2 / 3, 0, 1])
    second = torch.tensor([[0.0, 0.0, 6.0], [1.0, -1.0, 0.0], [1.0, 1.0, 0.0]])
    with listening() as figures:
        result = foolsgold(second, equal(3), server([9, 7, 4], memory))
    assert figures == {"learning_rates": [1, 0, 0], "slowed_share": pytest.approx(2 / 3)}
    assert result.tolist() == [0, 0, 2]
    with listening() as figures:  # the same round without memory
        foolsgold(second, equal(3), server([9, 7, 4]))
    assert figures["slowed_share"] == 0.0


def test_what_a_client_sent_is_kept_while_it_is_away():
    memory = {}
    foolsgold(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), equal(2), server([0, 1], memory))
    foolsgold(torch.tensor([[5.0, 5.0]]), equal(1), server([2], memory))
    foolsgold(torch.tensor([[1.0, 1.0]]), equal(1), server([0], memory))
    assert {name: tensor.tolist() for name, tensor in memory.items()} == {
        "sent_0": [2.0, 1.0],
        "sent_1": [0.0, 1.0],
        "sent_2": [5.0, 5.0],
    }


def test_the_sums_of_a_round_are_not_rows_of_one_block():
    """A row would keep the block of its round alive until its client comes again."""
    memory = {}
    foolsgold(torch.randn(5, 1000), equal(5), server(range(5), memory))
    places = [memory[f"sent_{client}"].data_ptr() for client in range(5)]
    assert 4000 not in {abs(one - other) for one in places for other in places}


def slow_rates(sent, kappa):
    n = len(sent)
    cosine = [[0.0] * n for _ in range(n)]
    for i in range(n):
        for j in range(n):
            lengths = math.sqrt(sum(sent[i] ** 2)) * math.sqrt(sum(sent[j] ** 2))
            cosine[i][j] = sum(sent[i] * sent[j]) / lengths
    most = [max(cosine[i][j] for j in range(n) if j != i) for i in range(n)]
    alpha = []
    for i in range(n):
        pardoned = [cosine[i][j] * (most[i] / most[j] if 0 < most[i] < most[j] else 1) for j in range(n) if j != i]
        alpha.append(min(1.0, max(0.0, 1 - max(pardoned))))
    rates = []
    for value in (value / max(alpha) for value in alpha):
        logit = math.inf if value == 1 else kappa * (math.log(value / (1 - value)) + 0.5)
        rates.append(min(1.0, max(0.0, logit)))
    return rates


@pytest.mark.parametrize("kappa", [1.0, 0.4])
def test_against_float64_over_rounds(kappa):
    generator, memory, sent = torch.Generator().manual_seed(1), {}, {}
    seen = []
    for _ in range(6):
        clients = torch.randperm(10, generator=generator)[:7].tolist()
        updates = torch.randn(7, 60, generator=generator)
        updates += 0.12 * torch.tensor(clients)[:, None]  # from not alike at all to much alike
        for client, row in zip(clients, updates.double().numpy(), strict=True):
            sent[client] = sent.get(client, 0) + row
        rates = slow_rates([sent[client] for client in clients], kappa)
        with listening() as figures:
            result = foolsgold(updates, equal(7), server(clients, memory), confidence=kappa)
        assert figures["learning_rates"] == pytest.approx(rates, abs=1e-5)
        assert figures["slowed_share"] == pytest.approx(sum(rate < 1 for rate in rates) / 7)
        truth = sum(rate * row for rate, row in zip(rates, updates.double().numpy(), strict=True)) / 7
        np.testing.assert_allclose(result.numpy(), truth, rtol=1e-4, atol=1e-5)
        seen += rates
    assert {0.0, 1.0} < set(seen)  # some stopped, some free, and some in between


def test_sybils_that_only_scale_what_they_send_are_stopped_and_the_others_go_on():
    generator = torch.Generator().manual_seed(2)
    updates = torch.randn(8, 1000, generator=generator)
    updates[:4] = updates[0] * torch.tensor([1.0, 0.3, 7.0, 1e20])[:, None]
    with listening() as figures:
        foolsgold(updates, equal(8), server(range(8)))
    assert figures["learning_rates"] == [0, 0, 0, 0, 1, 1, 1, 1]


def test_where_all_repeat_each_other_nobody_is_followed():
    row = torch.randn(1000, generator=torch.Generator().manual_seed(3))
    updates = row * torch.tensor([1.0, 0.3, 7.1, 2.3])[:, None]  # the cosines are 1 up to rounding
    with listening() as figures:
        result = foolsgold(updates, equal(4), server(range(4)))
    assert figures == {"learning_rates": [0.0] * 4, "slowed_share": 1.0}
    assert not result.any()


def test_one_attacker_alone_is_not_stopped():
    updates = torch.randn(6, 200, generator=torch.Generator().manual_seed(4)) + 1
    updates[0] *= -100
    with listening() as figures:
        foolsgold(updates, equal(6), server(range(6)))
    assert figures["learning_rates"][0] == 1.0


def test_the_largest_floats_twice_bring_no_infinity():
    memory = {}
    updates = torch.tensor([[3e38, 3e38], [0.0, 1.0], [1.0, 0.0]])
    for _ in range(3):
        result = foolsgold(updates, equal(3), server(range(3), memory))
    assert memory["sent_0"].isfinite().all()
    assert result.isfinite().all()


@pytest.mark.parametrize(
    ("clients", "options", "message"),
    [
        ([0, 1], {"confidence": 0.0}, "foolsgold needs a finite confidence > 0: confidence = 0.0"),
        ([3, 3], {}, r"foolsgold needs one client number a row: n = 2, clients = \[3, 3\]"),
        ([3], {}, r"foolsgold needs one client number a row: n = 2, clients = \[3\]"),
    ],
)
def test_refusals_leave_the_memory_alone(clients, options, message):
    memory = {}
    with pytest.raises(ValueError, match=message):
        foolsgold(torch.zeros(2, 2), equal(2), server(clients, memory), **options)
    assert memory == {}


def test_float64_is_remembered_and_given_back_to_its_last_step():
    memory = {}
    updates = torch.tensor([[1 + 1e-9, 0.0], [0.0, 1 - 3e-9]], dtype=torch.float64)
    for times in (1, 2):
        result = foolsgold(updates, equal(2), server([4, 7], memory))
        torch.testing.assert_close(result, updates.sum(dim=0) / 2, rtol=1e-15, atol=0)
        torch.testing.assert_close(memory["sent_7"], times * updates[1], rtol=1e-15, atol=0)


def test_a_memory_of_another_precision_is_refused():
    with pytest.raises(ValueError, match=r"foolsgold remembers a sent_4 .* float32: these updates have d = 2, float64"):
        foolsgold(torch.eye(2).double(), equal(2), server([4, 7], {"sent_4": torch.zeros(2)}))
