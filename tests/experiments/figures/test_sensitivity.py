"""The curves are the summaries: means over seeds, around the values that most cells have."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tests.experiments.figures.conftest import settings_of
from thornbed.experiments.figures.sensitivity import Sensitivity
from thornbed.experiments.runs.finished import FinishedRun
from thornbed.flower_apps.records.folder import Folder

FIGURE = Sensitivity(parameters=("tau", "clients_per_round"))


def run(accuracy, success=0.5, **changes):
    changes = {"strategy": "invariant(tau=0.2)", "num_clients": 8, "num_malicious": 2, **changes}
    metrics = {"accuracy": accuracy, "loss": 1.0, "attack_success_rate": success}
    return FinishedRun(name="", settings=settings_of(**changes), metrics=metrics, folder=Folder(Path()))


RUNS = [
    run(0.5, 0.1),
    run(0.7, 0.3, seed=1),
    run(0.4, strategy="invariant(tau=0.4)"),
    run(0.3, strategy="invariant(tau=0)"),
    run(0.2, None, clients_per_round=6, malicious_per_round=1),
]


def test_rows_are_the_summaries():
    table = FIGURE.draw(RUNS).tables[""]
    assert list(zip(table["parameter"], table["value"], table["seeds"])) == [
        ("tau", 0, 1),
        ("tau", 0.2, 2),
        ("tau", 0.4, 1),
        ("clients_per_round", 6, 1),
        ("clients_per_round", 8, 2),
    ]
    assert table["accuracy"].tolist() == pytest.approx([0.3, 0.6, 0.4, 0.2, 0.6])
    assert table["accuracy_std"].iloc[1] == pytest.approx(0.2 / math.sqrt(2))
    assert table["attack_success_rate"].iloc[1] == pytest.approx(0.2)
    assert math.isnan(table["attack_success_rate"].iloc[3])
    assert math.isnan(table["accuracy_std"].iloc[0])


def test_every_parameter_has_a_panel():
    tau, clients = FIGURE.draw(RUNS).picture.axes
    assert (tau.get_xlabel(), clients.get_xlabel()) == ("masking threshold τ", "clients per round")
    assert tau.get_ylabel() == "rate on the test set"
    line = next(line for line in tau.lines if len(line.get_xdata()) == 3)
    assert line.get_ydata().tolist() == pytest.approx([0.3, 0.6, 0.4])


def test_an_option_left_to_its_default_has_that_value():
    cells = [settings_of(strategy=strategy) for strategy in ("invariant", "invariant(tau=0.4)")]
    figure = Sensitivity(parameters=("tau",))
    figure.check(cells)
    assert [figure._point(settings) for settings in cells] == [(0.2,), (0.4,)]


@pytest.mark.parametrize(
    ("cells", "sentence"),
    [
        ([{}, {"seed": 1}], "needs two values of tau or more around tau = 0.2, clients_per_round = 4: values = [0.2]"),
        ([{}, {"strategy": "median"}], "no setting and no option of median called tau"),
        ([{}, {"strategy": "invariant(tau=0.4)"}], "two values of clients_per_round"),
        (
            [{}, {"strategy": "invariant(tau=0.4)"}, {"clients_per_round": 3}, {"seed": 1, "attack": "sign_flip"}],
            "seed alone: they also differ in attack",
        ),
    ],
)
def test_what_cannot_be_drawn_is_refused(cells, sentence):
    with pytest.raises(ValueError) as refused:
        FIGURE.check([settings_of(**{"strategy": "invariant(tau=0.2)", **changes}) for changes in cells])
    assert sentence in str(refused.value)


@pytest.mark.parametrize("parameters", [(), ("tau", "tau")])
def test_parameters_are_named_once(parameters):
    with pytest.raises(ValueError, match="needs parameters, each once"):
        Sensitivity(parameters=parameters)


def test_a_parameter_is_a_number():
    with pytest.raises(ValueError, match="needs numbers: task = 'digits"):
        Sensitivity(parameters=("task",)).check([settings_of()])
