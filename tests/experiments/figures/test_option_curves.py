"""A curve for cells that are alike but for x and their seed; the table is the summaries."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tests.experiments.figures.conftest import settings_of
from thornbed.experiments.figures.option_curves import OptionCurves
from thornbed.experiments.runs.finished import FinishedRun
from thornbed.flower_apps.records.folder import Folder

FIGURE = OptionCurves(x="beta", metrics=("psnr", "seconds_per_step"))


def run(psnr, curious="agic(beta=5.0)", **changes):
    metrics = {"accuracy": 0.1, "loss": 1.0, "psnr": psnr, "seconds_per_step": 0.5}
    settings = settings_of(**{"curious": curious, "attack": "none", **changes})
    return FinishedRun(name="", settings=settings, metrics=metrics, folder=Folder(Path()))


RUNS = [
    run(10.0, "agic(beta=1.0)"),
    run(12.0, "agic(beta=1.0)", seed=1),
    run(20.0),
    run(15.0, "agic(beta=1.0, relu_modifier=False)"),
    run(None, "agic(relu_modifier=False)"),
]


def test_rows_are_the_summaries():
    table = FIGURE.draw(RUNS).tables[""]
    plain, without = "agic", "agic, relu_modifier False"
    assert list(zip(table["curve"], table["beta"], table["seeds"])) == [
        (plain, 1, 2), (plain, 5, 1), (without, 1, 1), (without, 50, 1),
    ]  # fmt: skip
    assert table["psnr"].tolist()[:3] == pytest.approx([11.0, 20.0, 15.0])
    assert math.isnan(table["psnr"].iloc[3])
    assert table["psnr_std"].iloc[0] == pytest.approx(math.sqrt(2))
    assert table["seconds_per_step"].tolist() == [0.5] * 4


def test_there_is_a_panel_for_each_metric_and_a_curve_for_each_kind_of_cell():
    picture = FIGURE.draw(RUNS).picture
    assert [axes.get_title(loc="left") for axes in picture.axes] == ["PSNR (dB)", "Seconds per step"]
    assert all(len(axes.containers) == 2 for axes in picture.axes)
    assert picture.axes[0].get_xscale() == "log"
    assert picture.axes[1].get_ylim()[0] == 0


def test_a_tenth_of_a_decibel_is_drawn_as_little():
    picture = FIGURE.draw([run(13.4, "agic(beta=1.0)"), run(13.5)]).picture
    low, high = picture.axes[0].get_ylim()
    assert high - low >= 2


def test_how_long_a_cell_runs_tells_curves_apart_only_where_nothing_else_does():
    one, other = run(9.0, "agic(beta=1.0)", rounds=1), run(9.0, rounds=2)
    assert set(FIGURE.draw([one, other]).tables[""]["curve"]) == {"agic"}
    both = [one, other, run(9.0, "agic(beta=1.0)", rounds=2)]
    assert set(FIGURE.draw(both).tables[""]["curve"]) == {"agic, rounds 1", "agic, rounds 2"}


def test_no_two_curves_look_the_same_and_all_names_fit():
    names = [f"agic(beta={beta}, relu_modifier=False, steps={steps})" for beta in (1.0, 5.0) for steps in range(1, 16)]
    picture = FIGURE.draw([run(9.0, name) for name in names]).picture
    looks = [(key.get_color(), key.get_linestyle(), key.get_marker()) for key in picture.legends[0].get_lines()]
    assert len(set(looks)) == 15
    picture.draw_without_rendering()
    assert picture.legends[0].get_window_extent().x1 <= picture.bbox.x1


def test_x_may_be_a_setting():
    runs = [run(9.0, batch_size=size) for size in (1, 2)]
    table = OptionCurves(x="batch_size").draw(runs).tables[""]
    assert table["batch_size"].tolist() == [1, 2]
    assert set(table["curve"]) == {"agic"}


@pytest.mark.parametrize(
    ("figure", "cells", "sentence"),
    [
        (FIGURE, [settings_of()], "needs one in every cell: curious = none"),
        (FIGURE, [RUNS[0].settings], r"needs two values of beta or more: values = \[1.0\]"),
        (FIGURE, [settings_of(curious="dlg_adam")], "no setting and no option of dlg_adam called beta"),
        (OptionCurves(x="shape"), [settings_of(curious="agic")], "needs numbers: shape = 'linear'"),
    ],
)
def test_cells_that_make_no_curve_are_refused(figure, cells, sentence):
    with pytest.raises(ValueError, match=sentence):
        figure.check(cells)


def test_unknown_metrics_are_refused():
    with pytest.raises(ValueError, match="knows no metric sharpness; there are accuracy"):
        OptionCurves(metrics=("sharpness",))
    with pytest.raises(ValueError, match="one metric or more"):
        OptionCurves(metrics=())
    with pytest.raises(ValueError, match=r"takes options of task, model, .*: of = rounds"):
        OptionCurves(of="rounds")


def test_x_may_be_an_option_of_the_attack_or_the_strategy():
    runs = [run(9.0, "agic", attack=f"scaling(factor={factor})") for factor in (2.0, 5.0)]
    table = OptionCurves(x="factor", of="attack").draw(runs).tables[""]
    assert table["factor"].tolist() == [2.0, 5.0]
    assert set(table["curve"]) == {"scaling"}
