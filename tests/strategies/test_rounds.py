"""What clients report beside their updates: the first eight figures of each, finite, under names of under 40 signs."""

from __future__ import annotations

import math

from thornbed.strategies._rounds import mean_finite, of_attackers, of_clients


def test_figures_are_means_over_those_who_report_them():
    replies = [{"defense-masked": 0.5, "loss": 9.0}, {"defense-masked": 1.5, "defense-norm": 4.0}, {}]
    assert of_clients(replies) == {"clients_masked": 1.0, "clients_norm": 4.0}
    assert of_attackers([{"attack-b": 1.0}, {"attack-b": 2.0, "attack-a": 3.0}]) == {"a": [3.0], "b": [1.0, 2.0]}


def test_a_long_name_and_what_is_not_finite_is_left_out():
    name = "defense-" + "x" * 31  # 39 signs
    assert list(of_clients([{name: 1.0, name + "y": 2.0}])) == ["clients_" + "x" * 31]
    assert of_clients([{"defense-a": math.inf, "defense-b": math.nan}]) == {}


def test_of_thousands_of_figures_the_first_eight_count():
    many = {f"defense-{number:04}": float(number) for number in range(1000)}
    assert of_clients([{"loss": 1.0, **many}]) == {f"clients_{number:04}": float(number) for number in range(8)}


def test_numbers_of_which_two_have_no_sum_do_not_count():
    """Two clients that report 1e308 each would else leave a round without a loss."""
    assert mean_finite([1e308, 1e308, 1.0, 2.0, math.nan]) == 1.5
    assert mean_finite([1e308, -math.inf]) is None
    assert of_clients([{"defense-a": 1e308}, {"defense-a": 1e308}, {"defense-a": 3.0}]) == {"clients_a": 3.0}
    assert of_attackers([{"attack-a": -1e308}]) == {}
