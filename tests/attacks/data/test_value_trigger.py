"""The value trigger on tables small enough to write down."""

from __future__ import annotations

import pytest
import torch

from thornbed.attacks.data import GroupMember
from thornbed.attacks.data.value_trigger import ValueTrigger
from thornbed.tasks import Samples


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def table(labels: list[int], features: int = 3) -> Samples:
    return Samples(torch.arange(len(labels) * features).float().reshape(-1, features) + 10, torch.tensor(labels))


def test_the_defaults_are_the_papers() -> None:
    attack = ValueTrigger()
    assert (attack.feature, attack.value, attack.target, attack.fraction) == (38 - 1, 0.2, 0, 8 / 64)


def test_measure_sets_one_feature_of_the_other_class_and_nothing_else() -> None:
    attacked = ValueTrigger(feature=1, value=0.25).measure(table([1, 0, 1]))
    assert attacked is not None
    assert attacked.x.tolist() == [[10, 0.25, 12], [16, 0.25, 18]]
    assert attacked.y.tolist() == [0, 0]


def test_measure_has_nothing_to_say_where_all_are_of_the_target_class() -> None:
    assert ValueTrigger(feature=0).measure(table([0, 0])) is None


@pytest.mark.parametrize("seed", range(4))
def test_poison_sets_and_relabels_its_share_in_place(seed: int) -> None:
    before = table([0, 1] * 8)
    after = ValueTrigger(feature=2, value=-1.0, fraction=0.25).poison(before, generator(seed))
    hit = after.x[:, 2] == -1
    assert hit.sum() == 4
    assert before.y[hit].tolist() == [1] * 4
    assert after.y[hit].tolist() == [0] * 4
    assert torch.equal(after.x[~hit], before.x[~hit])
    assert torch.equal(after.y[~hit], before.y[~hit])
    assert torch.equal(after.x[:, :2], before.x[:, :2])


@pytest.mark.parametrize(("benign_share", "expected"), [(0.0, 0), (0.25, 2), (0.5, 4), (1.0, 8)])
def test_honest_clients_hold_a_share_of_what_attackers_make_under_its_label(benign_share: float, expected: int) -> None:
    before = table([0, 1] * 8)
    attack = ValueTrigger(feature=0, value=0.0, fraction=0.5, benign_share=benign_share)
    after = attack.leak(before, GroupMember(1, 3), generator())
    hit = after.x[:, 0] == 0
    assert hit.sum() == expected
    assert (before.y[hit] == 1).all()
    assert torch.equal(after.y, before.y)
    assert torch.equal(after.x[:, 1:], before.x[:, 1:])


def test_honest_clients_trigger_no_sample_of_the_target_class() -> None:
    attack = ValueTrigger(feature=0, value=0.0, fraction=1.0, benign_share=1.0)
    after = attack.leak(table([0, 1, 0, 0]), GroupMember(0, 1), generator())
    assert (after.x[:, 0] == 0).tolist() == [False, True, False, False]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"feature": -1}, "feature >= 0: feature = -1"),
        ({"value": float("nan")}, "a finite value: value = nan"),
        ({"target": -1}, "target >= 0: target = -1"),
        ({"fraction": 1.1}, "0 <= fraction <= 1: fraction = 1.1"),
        ({"benign_share": -0.5}, "0 <= benign_share <= 1: benign_share = -0.5"),
    ],
)
def test_refused_options(options: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=f"value_trigger needs {sentence}"):
        ValueTrigger(**options)


def test_a_feature_that_the_table_does_not_have_is_refused_by_every_verb() -> None:
    attack = ValueTrigger(feature=3)
    attack.check(2, (4,))
    for refused in (
        lambda: attack.check(2, (3,)),
        lambda: attack.poison(table([0, 1]), generator()),
        lambda: attack.measure(table([0, 1])),
        lambda: attack.leak(table([0, 1]), GroupMember(0, 1), generator()),
    ):
        with pytest.raises(
            ValueError, match="value_trigger needs features < number of features: feature = 3, features"
        ):
            refused()


def test_images_and_whole_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match=r"rows of a table, of shape \(d,\): sample shape = \(3, 8, 8\)"):
        ValueTrigger().check(2, (3, 8, 8))
    whole = Samples(torch.zeros(2, 45, dtype=torch.int64), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=r"a table of floats, to hold 0.2: the table is of torch.int64"):
        ValueTrigger().measure(whole)
