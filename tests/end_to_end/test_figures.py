"""Figures of a sweep as a user gets them: drawn at the end and again on repeat, shown in the report, or refused."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from PIL import Image

from thornbed.experiments.sweeps.plan import read_plan

COUNTED = '[about]\ntitle = "Counted"\nfigure = "theorem10(trials=20, num_points=2)"\n'
RUNS = """
task = "digits(num_train=240, num_test=120)"
model = "mlp(hidden=(8,))"
num-clients = 4
partition = "iid"
rounds = {rounds}
attack = {attack}
strategy = ["invariant(tau=0.0)", "invariant(tau=0.4)"]
[about]
figure = "sensitivity(parameters=('tau',)) + loss_landscape(points_per_side=1, num_random=1)"
"""


@pytest.fixture
def sweep_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path / "mine.toml"


def test_figures_are_drawn_from_finished_cells_and_again_on_repeat(thornbed, tmp_path, sweep_file):
    sweep_file.write_text(RUNS.format(rounds=2, attack='"pixel_trigger(size=2)"'))
    out = tmp_path / "out"
    typed = thornbed("sweep", sweep_file, "--output", out)
    assert typed.code == 0, typed.err
    assert f"Figure: {out / 'sensitivity.png'}; its numbers: sensitivity.csv" in typed.out
    names = ("sensitivity", "loss_landscape")
    before = {ending: [(out / f"{name}.{ending}").read_bytes() for name in names] for ending in ("png", "csv")}
    assert Image.open(out / "loss_landscape.png").size[0] > 1000
    cells = {path: json.loads((path / "summary.json").read_text()) for path in (out / "cells").iterdir()}
    table = pd.read_csv(out / "sensitivity.csv")
    by_tau = {each["settings"]["strategy"]: each["metrics"] for each in cells.values()}
    assert table["accuracy"].tolist() == [by_tau[f"invariant(tau={tau})"]["accuracy"] for tau in (0.0, 0.4)]
    landscape = pd.read_csv(out / "loss_landscape.csv")
    assert set(landscape["run"]) == {"invariant(tau=0.0)", "invariant(tau=0.4)"}

    # Killed before its end: one cell goes on, and all figures are drawn again, the same to the byte.
    cell = next(iter(cells))
    (cell / "summary.json").unlink()
    for name in names:
        (out / f"{name}.png").unlink()
        (out / f"{name}.csv").write_text("old")
    typed = thornbed("sweep", sweep_file, "--output", out)
    assert typed.code == 0, typed.err
    assert "2 cells, 1 of them done" in typed.out
    assert before == {ending: [(out / f"{name}.{ending}").read_bytes() for name in names] for ending in ("png", "csv")}
    assert not list(out.glob("*.part"))

    assert thornbed("report", out).code == 0
    page = (out / "report.html").read_text()
    assert page.count('<figure class="picture drawn">') == 2
    assert "its numbers: sensitivity.csv" in page
    assert f"Figure: {out / 'loss_landscape.png'}" in thornbed("show", out).out


def test_a_sweep_with_a_broken_cell_draws_nothing(thornbed, tmp_path, sweep_file):
    text = RUNS.format(rounds=1, attack='"pixel_trigger(size=2) + scaling(factor=1e39)"')
    sweep_file.write_text(text.replace("num-clients = 4", "num-clients = 4\nnum-malicious = 1\nmin-replies = 4"))
    typed = thornbed("sweep", sweep_file, "--output", tmp_path / "out")
    assert typed.code == 1
    assert "2 of 2 cells are broken" in typed.sentence
    assert not list((tmp_path / "out").glob("*.png"))


def test_a_figure_that_needs_no_cells_has_none(thornbed, tmp_path, sweep_file):
    sweep_file.write_text(COUNTED)
    out = tmp_path / "runs" / "sweeps" / "mine"
    first = thornbed("sweep", sweep_file)
    assert first.code == 0, first.err
    numbers = (out / "theorem10.csv").read_bytes()
    assert not (out / "cells").exists()
    (out / "theorem10.csv").unlink()
    assert thornbed("sweep", sweep_file).code == 0
    assert (out / "theorem10.csv").read_bytes() == numbers
    assert thornbed("report", out).code == 0
    page = (out / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 1
    assert "<h1>Counted</h1>" in page
    assert "Results" not in page
    assert thornbed("show", out).out.split() == ["Figure:", str(out / "theorem10.png")]
    typed = thornbed("sweep", sweep_file, "--seeds", "0,1")
    assert typed.code == 2
    assert "mine.toml has no cells, so there is nothing that --seeds could seed" in typed.sentence


def test_with_settings_it_has_cells_all_the_same(sweep_file):
    sweep_file.write_text('strategy = ["fedavg", "median"]\n' + COUNTED)
    assert len(read_plan(sweep_file).cells) == 2
    sweep_file.write_text('[about]\nfigure = "loss_landscape + theorem10"\n[scale.cpu]\nattack = "pixel_trigger"\n')
    assert len(read_plan(sweep_file, scale="cpu").cells) == 1


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('figure = "theorem"', "figure: there is no figure called theorem; did you mean theorem10?"),
        ('figure = "theorem10(alfa=0.2)"', "figure: theorem10 has no option alfa; it takes num_clients: int"),
        ("figure = \"theorem10(alpha='a')\"", "figure: theorem10 takes alpha: float, not 'a'"),
        ('figure = "theorem10(alpha=0.5)"', "figure: theorem10 needs 1 <= num_malicious <= alpha * num_clients"),
        ('figure = "theorem10("', "figure: 'theorem10(' is no spec"),
        ('figure = "theorem10 + theorem10(seed=1)"', "names a figure twice, and one would overwrite the other"),
        ("figure = 3", "Input should be a valid string at figure of About"),
        ('figure = "loss_landscape"', "figure loss_landscape: loss_landscape needs an attack on data in every cell"),
        (
            'figure = "sensitivity"',
            "figure sensitivity: sensitivity finds no setting and no option of fedavg called tau",
        ),
        ('figure = "update_histogram"\n[[block]]\nseed = [0, 1]', "update_histogram draws one cell: cells = 2"),
    ],
)
def test_a_bad_figure_is_one_sentence_and_code_2(thornbed, tmp_path, sweep_file, text, sentence):
    sweep_file.write_text(f"[about]\n{text}\n")
    typed = thornbed("sweep", sweep_file, "--output", tmp_path / "out")
    assert typed.code == 2
    assert sentence in typed.sentence
    assert "mine.toml" in typed.sentence
    assert typed.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["mine.toml"]


def test_what_was_run_and_cannot_be_drawn_is_said(thornbed, tmp_path, sweep_file, monkeypatch):
    from thornbed.experiments.figures.theorem10 import Theorem10
    from thornbed.flower_apps.settings import RunFailed

    def fail(self, runs):
        raise RunFailed("there is no paper")

    monkeypatch.setattr(Theorem10, "draw", fail)
    sweep_file.write_text(COUNTED)
    typed = thornbed("sweep", sweep_file, "--output", tmp_path / "out")
    assert typed.code == 1
    assert "the figure theorem10 cannot be drawn: there is no paper" in typed.sentence
    assert not list((tmp_path / "out").glob("*.csv"))


def test_a_report_shows_no_file_that_is_no_figure(thornbed, tmp_path, sweep_file):
    """What lies in a sweep's folder is text of others: names are looked up, and only pictures are shown."""
    sweep_file.write_text(COUNTED)
    out = tmp_path / "out"
    assert thornbed("sweep", sweep_file, "--output", out).code == 0
    (tmp_path / "secret.png").write_bytes((out / "theorem10.png").read_bytes())
    description = json.loads((out / "sweep.json").read_text())
    description |= {"figures": ["../secret", "theorem10", 5, None], "title": "<script>alert(1)</script>"}
    (out / "sweep.json").write_text(json.dumps(description))
    assert thornbed("report", out).code == 0
    page = (out / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 1
    assert "<script>alert" not in page
    (out / "theorem10.png").write_text("<html>")
    typed = thornbed("report", out)
    assert typed.code == 2
    assert "holds no run" in typed.sentence
