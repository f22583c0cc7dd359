"""Whatever metrics runs have, everything that shows runs shows them: one table knows how."""

import io
import re

import pandas as pd
import pytest
from rich.console import Console

from thornbed.experiments.report import write_report
from thornbed.experiments.runs import launch
from thornbed.experiments.sweeps.command import _rich
from thornbed.experiments.sweeps.plan import Published
from thornbed.experiments.sweeps.results import as_texts, beside_published, compared, runs_frame, write_tables
from thornbed.flower_apps.metrics import METRICS, columns, named, rates_first
from thornbed.flower_apps.records.folder import SUMMARIZED, Folder
from thornbed.flower_apps.resolving import resolve
from thornbed.flower_apps.settings import BadSettings, settings_from

LEARNED = {"accuracy": 0.5, "loss": 1.25, "attack_success_rate": None}
SEEN = {"psnr": 21.5, "ssim": 0.75, "lpips": None, "label_accuracy": 1.0, "seconds_per_step": 0.02125}


def finished(path, metrics, lines=(), **values):
    """Write the folder of a finished run that measured these."""
    folder, settings = Folder(path), resolve(settings_from({"rounds": 2, **values}))
    path.mkdir(parents=True)
    folder.write_config(settings, {})
    for number, line in enumerate(lines):
        folder.append({"round": number, "seconds": 1.0, **line})
    rest = {**dict.fromkeys(SUMMARIZED), "seconds": 1.0, "malicious": [], "replies_dropped": 0}
    folder.finish(settings, {**rest, "metrics": metrics})
    return folder


def headings(tmp_path, *folders):
    """Return the headings of the report's results and the titles of its panels."""
    write_report([folder.path for folder in folders], tmp_path / "report.html", "Runs")
    text = (tmp_path / "report.html").read_text().replace("&nbsp;", " ")
    cells = re.findall(r'<th scope="col"[^>]*>(.*?)</th>', text.partition("</thead>")[0])
    return cells, re.findall(r'<div class="panel">\s*<h3>(.*?)</h3>', text)


def test_every_metric_says_how_it_is_shown():
    for name, metric in METRICS.items():
        assert metric.words.lower() == name.replace("_", " ")
        assert metric.heading[0].isupper()
        assert float(metric.form.format(0.25)) == pytest.approx(0.25, abs=0.01)
        assert metric.shown(None) != metric.shown(0.0)
    assert [METRICS[name].shown(21.456) for name in ("accuracy", "loss", "psnr")] == ["21.456", "21.4560", "21.46 dB"]
    assert [METRICS[name].shown(0.012345) for name in ("seconds_per_step", "duality_gap")] == ["0.0123", "1.23e-02"]
    assert [METRICS[name].shown(None) for name in ("accuracy", "loss", "psnr")] == ["-", "not finite", "-"]
    assert [METRICS[name].heading for name in ("attack_success_rate", "psnr")] == ["Attack success rate", "PSNR (dB)"]


def test_columns_are_those_that_any_run_has():
    assert named([{"psnr": None, "seed": 1}, {"loss": 2.0}]) == ["loss", "psnr"]
    assert columns([LEARNED, {"psnr": None, "lpips": None, "ssim": 0.5}]) == ["accuracy", "attack_success_rate", "ssim"]
    assert columns([{"rmse": 2.5, "primal_objective": 1.0}]) == ["rmse"]
    assert columns([]) == columns([{"loss": 1.0}]) == ["accuracy", "attack_success_rate"]
    assert rates_first(["loss", "accuracy", "psnr", "label_accuracy"]) == ["accuracy", "label_accuracy", "loss", "psnr"]


def test_tables_of_runs_have_a_column_of_each(tmp_path):
    seen = [finished(tmp_path / f"{seed}", {**LEARNED, **SEEN, "psnr": 21.0 + seed}, seed=seed) for seed in range(2)]
    table = compared(runs_frame(seen))
    assert table["psnr"].tolist() == [21.5]
    assert "lpips" not in table
    assert "attack_success_rate" not in table
    texts = as_texts(table)
    assert texts["PSNR (dB)"].tolist() == ["21.50 ± 0.71"]  # sqrt(0.5)
    assert texts["seconds per step"].tolist() == ["0.0213 ± 0"]
    comma, _, tex = write_tables(table, tmp_path, "results")
    assert pd.read_csv(comma)["label_accuracy"].tolist() == [1.0]
    assert "21.50 ± 0.71" in tex.read_text()


def test_a_metric_never_takes_the_place_of_a_setting(tmp_path):
    table = runs_frame([finished(tmp_path / "run", {**LEARNED, "strategy": 0.5, "unheard_of": 1.0})])
    assert table["strategy"].tolist() == ["fedavg"]
    assert "unheard_of" not in table


def test_a_papers_numbers_are_shown_as_ours_of_their_metric(tmp_path):
    runs = runs_frame([finished(tmp_path / "run", {**LEARNED, **SEEN})])
    numbers = [Published(where={"task": "digits"}, metric=name, value=2.0) for name in ("psnr", "accuracy")]

    class Plan:
        published = numbers

    texts = as_texts(beside_published(Plan, runs))
    assert texts["ours"].tolist() == ["21.50", "0.500"]
    assert texts["difference"].tolist() == ["+19.50", "-1.500"]
    with pytest.raises(ValueError, match=r"Input should be 'accuracy', .*'seconds_per_step'"):
        Published(where={}, metric="psnrr", value=1.0)


@pytest.mark.parametrize("width", [80, 120])
def test_a_terminal_has_room_for_all_of_them(tmp_path, width):
    seen = [finished(tmp_path / f"{seed}", {**LEARNED, **SEEN, "psnr": 21.0 + seed}, seed=seed) for seed in range(2)]
    out = Console(file=io.StringIO(), width=width)
    out.print(_rich(as_texts(compared(runs_frame(seen))), "Runs", out))
    said = out.file.getvalue()
    assert max(map(len, said.splitlines())) <= width
    for words in ("0.500 ± 0.000", "21.50 ± 0.71", "0.750 ± 0.000", "1.000 ± 0.000", "seconds"):
        assert words in said
    assert "1.250" not in said  # the loss is in the files


def test_a_runs_own_table_says_what_is_missing(tmp_path):
    run = finished(tmp_path / "run", {**LEARNED, **SEEN})
    summary = run.summary()
    out = Console(file=io.StringIO(), width=80)
    out.print(launch._result(resolve(run.settings()), summary))
    rows = [[cell.strip() for cell in line.split("│")[1:3]] for line in out.file.getvalue().splitlines()[5:-2]]
    assert rows == [
        ["accuracy", "0.500"], ["attack success rate", "-"], ["label accuracy", "1.000"], ["loss", "1.2500"],
        ["PSNR", "21.50 dB"], ["SSIM", "0.750"], ["LPIPS", "-"], ["seconds per step", "0.0213"],
    ]  # fmt: skip
    assert launch.figures(LEARNED) == "acc 0.500  asr -"
    assert launch.figures({"rmse": 2.5, "primal_objective": 3.0}) == "RMSE 2.500"


def test_runs_of_another_kind_of_learning_are_read_and_shown(thornbed, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    lines = [{"error": rate, "primal_objective": 2.0} for rate in (0.75, 0.5, 0.25)]
    run = finished(tmp_path / "run", {"error": 0.25, "primal_objective": 2.0}, lines)
    run.check()
    shown = thornbed("show", run.path).out
    assert "error" in shown
    assert "0.250" in shown
    assert "accuracy" not in shown
    names, panels = headings(tmp_path, run)
    assert names[4:6] == ["Error", "Defense, last round"]
    assert panels == ["Error"]


def test_the_report_has_columns_of_what_any_run_has(tmp_path):
    plain, seen = finished(tmp_path / "a", LEARNED), finished(tmp_path / "b", {**LEARNED, **SEEN}, seed=1)
    learned = ["Accuracy", "Attack success rate"]
    assert headings(tmp_path, plain)[0][4:7] == [*learned, "Defense, last round"]
    others = ["PSNR (dB)", "SSIM", "Label accuracy", "Seconds per step"]
    assert headings(tmp_path, plain, seen)[0][4:11] == [*learned, *others, "Defense, last round"]


@pytest.mark.parametrize("metrics", [{}, {"unheard_of": 1.0}, {"psnr": "high"}, {**LEARNED, "ssim": [0.5]}])
def test_a_summary_without_a_metric_or_with_one_that_is_no_number_is_damaged(tmp_path, metrics):
    with pytest.raises(BadSettings, match=r"summary\.json is damaged"):
        finished(tmp_path / "run", metrics).summary()


@pytest.mark.parametrize("line", [{}, {"unheard_of": 1.0}, {"error": "high"}])
def test_a_round_without_a_metric_or_with_one_that_is_no_number_is_damaged(tmp_path, line):
    with pytest.raises(BadSettings, match=r"metrics\.jsonl is damaged: line 1"):
        finished(tmp_path / "run", LEARNED, [line]).check()
