"""The report: one file that stands alone, says what the records say, trusts none of it, and fits a narrow window."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch

from thornbed.experiments.report import DASHES, TEMPLATES, ReportedRun, acted, write_report
from thornbed.flower_apps.inversion.pictures import write_inversion_pictures
from thornbed.flower_apps.records.folder import Folder
from thornbed.flower_apps.records.plots import write_pictures
from thornbed.flower_apps.settings import Settings
from thornbed.tasks.digits import digits

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{ 7777 * 7777 }}"
VOID = {"meta", "link", "img", "br", "wbr", "hr", "input"}


def make_run(path: Path, *, done: int = 3, rate: float | None = 0.25, defense: Any = None, **settings: Any) -> Folder:
    """Write the folder of a run of 3 rounds as a federation leaves it; it is unfinished where fewer are done."""
    folder = Folder(path)
    path.mkdir(parents=True)
    values = {"num_clients": 4, "clients_per_round": 4, "num_malicious": 1, "attack": "pixel_trigger", "rounds": 3}
    run = Settings(**{**values, **settings})
    folder.write_config(run, {"device": "cpu", "num_parameters": 10})
    for number in range(done + 1):
        line: dict[str, Any] = {"round": number, "accuracy": 0.2 * number, "loss": 1.0, "attack_success_rate": rate}
        if number:
            dropped = [{"client": 0, "reason": "values that are not finite"}]
            line |= {"sampled": [0, 1, 2, 3], "sampled_malicious": [3], "dropped": dropped, "defense": defense or {}}
        folder.append({**line, "seconds": 0.5})
    if done == 3:
        metrics = {"accuracy": 0.6, "loss": 1.0, "attack_success_rate": rate}
        summary = {"metrics": metrics, "rounds": 3, "seconds": 1234.5, "malicious": [3], "defense_was_told": {}}
        folder.finish(run, summary)
    return folder


class Page(HTMLParser):
    """What is on a page: its tags with their attributes, its text, rows of its tables; elements have to be closed."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.rows: list[list[str]] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.rows = [[" ".join(cell.split()) for cell in row] for row in self.rows]
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self.open):
            self.text += data
            if {"td", "th"} & set(self.open):
                self.rows[-1][-1] += data


def report(tmp_path: Path, folders: list[Path], title: str = "Runs") -> Page:
    target = tmp_path / "out" / "report.html"
    write_report(folders, target, title)
    assert [path.name for path in target.parent.iterdir()] == ["report.html"]
    return Page(target)


def test_the_table_says_what_the_records_say(tmp_path: Path) -> None:
    defense = {"selected": [2], "masked_share": 0.25}
    first = make_run(tmp_path / "first", strategy="krum(num_byzantine=1)", defense=defense)
    page = report(tmp_path, [first.path], title="A & B")
    assert page.rows[1] == [
        "1 first", "krum(num_byzantine=1)", "pixel_trigger", "1 of 4", "0.600", "0.250",
        "kept 1 of 3 updates, 1 of 1 malicious ones; masked share 25.0 %", "3", "3", "inline", "1,234",
    ]  # fmt: skip
    assert "A & B" in page.text
    assert json.loads((first.path / "config.json").read_text())["command"] in page.text
    assert "3 × values that are not finite" in page.text
    assert Counter(tag for tag, _ in page.tags)["details"] == 1


def test_the_file_stands_alone(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name).path for name in "ab"]
    for run in runs:
        write_pictures(run, digits(None), None)
    page = report(tmp_path, runs)
    for name in ("src", "href", "srcset", "data", "poster", "action", "xlink:href"):
        assert all(re.match(r"(data:|#)", attributes.get(name) or "#") for _, attributes in page.tags)
    assert not re.search(r"https?:|//[a-z]|@import|url\(", page.source)
    assert {"link", "script", "style"} <= {tag for tag, _ in page.tags}
    assert not {"iframe", "object", "embed", "base", "form"} & {tag for tag, _ in page.tags}


def test_equal_pictures_are_shown_once(tmp_path: Path) -> None:
    from thornbed.attacks.data.pixel_trigger import PixelTrigger

    runs = [make_run(tmp_path / name).path for name in "abc"]
    for run, target in zip(runs, (0, 0, 1)):
        write_pictures(run, digits(None), PixelTrigger(target=target))
    fake = make_run(tmp_path / "fake").path
    (fake / "trigger.png").write_text("<svg onload=alert(1)>")
    page = report(tmp_path, [*runs, fake])
    pictures = [{name: str(value) for name, value in found.items()} for tag, found in page.tags if tag == "img"]
    assert [picture["src"][:22] for picture in pictures] == ["data:image/png;base64,"] * 2
    assert all("attacked by pixel_trigger" in picture["alt"] for picture in pictures)
    assert all(int(picture["width"]) > int(picture["height"]) > 100 for picture in pictures)


def test_a_rate_that_was_not_measured_is_a_dash_that_says_so(tmp_path: Path) -> None:
    page = report(tmp_path, [make_run(tmp_path / "run", rate=None, attack="none", num_malicious=0).path])
    assert page.rows[1][5] == "–"
    titles = [attributes.get("title") for tag, attributes in page.tags if attributes.get("class") == "missing"]
    assert "not measured" in titles
    assert "Attack success rate was not measured in any run." in page.text


def test_unfinished_runs_show_what_they_have(tmp_path: Path) -> None:
    begun = make_run(tmp_path / "begun", done=2)
    with (begun.path / "metrics.jsonl").open("a") as stream:
        stream.write('{"round": 3, "accu')  # cut off by a kill
    waiting = make_run(tmp_path / "waiting", done=-1)
    page = report(tmp_path, [begun.path, waiting.path])
    assert page.rows[1][0] == "1 begun unfinished"
    assert page.rows[1][4:6] == ["0.400", "0.250"]
    assert page.rows[1][8:] == ["2 of 3", "inline", "1.5"]
    assert page.rows[2][4:] == ["–", "–", "–", "0", "0 of 3", "inline", "–"]
    assert "2 runs: 0 finished, 2 unfinished" in page.text
    assert "No round is done yet." in page.text


def test_damaged_folders_get_one_sentence(tmp_path: Path) -> None:
    for name in ("config.json", "metrics.jsonl", "summary.json"):
        for number, content in enumerate((b"{", b"null", b"[1]", b"\xff\xfe", b"[" * 100_000, b"3\n4\n{}\n", b"nan")):
            folder = make_run(tmp_path / f"{number}-{name}")
            (folder.path / name).write_bytes(content)
    (make_run(tmp_path / "line").path / "metrics.jsonl").write_text("{}\n{]\n{}\n")
    (tmp_path / "turned" / "config.json").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    made = sorted(path for path in tmp_path.iterdir() if path.name != "out")
    page = report(tmp_path, [*made, tmp_path / "missing"])
    sentences = {row[0].split()[1]: row[1] for row in page.rows if len(row) == 2}
    # A metrics file with one broken line at its end is that of a run killed in its first round.
    killed = {"0-metrics.jsonl", "6-metrics.jsonl"}
    assert set(sentences) == {path.name for path in made} - killed | {"missing"}
    assert sentences["line"] == "metrics.jsonl cannot be read: damaged in line 2."
    assert sentences["empty"] == "There is no config.json in this folder, so it holds no run."
    assert sentences["file"] == sentences["missing"] == "There is no such folder."
    assert all(sentence.endswith(".") and "Traceback" not in sentence for sentence in sentences.values())


def test_values_of_any_type_are_endured(tmp_path: Path) -> None:
    whole = make_run(tmp_path / "whole")
    config, summary = (json.loads((whole.path / name).read_text()) for name in ("config.json", "summary.json"))
    line = whole.lines()[-1]
    odd: list[Any] = [[], {}, "x", None, True, 10**400, -1e308, float("nan"), [[]], [{}], [None, "x", 1e308], "\ud800"]
    changed: list[tuple[str, dict[str, Any]]] = []
    for value in odd:
        changed += [("config.json", {**config, key: value}) for key in config]
        changed += [("config.json", {"settings": dict.fromkeys(config["settings"], value)})]
        changed += [("summary.json", {**summary, key: value}) for key in summary]
        changed += [("summary.json", {"metrics": {"accuracy": value, "attack_success_rate": value}})]
        changed += [("metrics.jsonl", {**line, key: value}) for key in line]
        changed += [("metrics.jsonl", {**line, "defense": {"selected": value, "x_share": value, "y": value}})]
        changed += [("metrics.jsonl", {**line, "dropped": [value, {"client": value, "reason": value}]})]
    for number, (name, content) in enumerate(changed):
        shutil.copytree(whole.path, tmp_path / "odd" / f"{number}")
        (tmp_path / "odd" / f"{number}" / name).write_text(json.dumps(content))
    page = report(tmp_path, sorted((tmp_path / "odd").iterdir()))
    assert f"{len(changed)} runs" in page.text
    assert "damaged" not in page.text
    assert all(re.fullmatch(r"[MLl0-9. ]*", attributes.get("d") or "") for _, attributes in page.tags)


def test_nothing_of_a_run_becomes_markup(tmp_path: Path) -> None:
    def build(parent: Path, text: str, name: str) -> list[Path]:
        evil = make_run(parent / name, strategy=text, attack=text, engine=text, defense={text: text, "b": [1, 2]})
        config = json.loads((evil.path / "config.json").read_text())
        config |= {"command": text, "device": text, "versions": {text: text}, text: text}
        config["settings"] |= {text: text, "num_clients": text, "num_malicious": text, "defense": text}
        (evil.path / "config.json").write_text(json.dumps(config))
        evil.append({"round": 4, text: 1, "dropped": [{"client": 1, "reason": text}]})
        (evil.path / "trigger.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + b"\0\0\0\x09" * 2)
        broken = make_run(parent / f"{name}2").path
        (broken / "config.json").write_text("{")
        return [evil.path, broken]

    name = EVIL.replace("/", "")
    good = report(tmp_path / "1", build(tmp_path / "1" / "runs", "plain", "plain"), "plain")
    evil = report(tmp_path / "2", build(tmp_path / "2" / "runs", EVIL, name), EVIL)
    tags, expected = (Counter(tag for tag, _ in page.tags) for page in (evil, good))
    tags["wbr"] = expected["wbr"] = 0  # after every bracket
    assert tags == expected
    assert tags["script"] == 1
    assert not [key for _, attributes in evil.tags for key in attributes if key.startswith("on")]
    assert evil.text.count(EVIL) >= 10
    assert evil.text.count(name) >= 4
    assert str(7777 * 7777) not in evil.source
    policy = next(str(attributes["content"]) for _, attributes in evil.tags if attributes.get("http-equiv"))
    assert re.search(r"default-src 'none'.*script-src 'sha256-[^']+'", policy)
    assert "unsafe-inline" not in policy.split("script-src")[1]


def test_runs_are_told_apart(tmp_path: Path) -> None:
    paths = [make_run(tmp_path / name).path for name in ("a/run", "b/run", "other")]
    page = report(tmp_path, [*paths, paths[0], tmp_path / "a" / ".." / "other"])
    assert [row[0] for row in page.rows if len(row) == 11][1:] == ["1 a/run", "2 b/run", "3 other"]
    styles = [(run.color, run.dash) for run in (ReportedRun(number=n, name="") for n in range(1, 37))]
    assert len(set(styles)) == 36
    assert {dash for _, dash in styles[:6]} == set(DASHES)
    assert "There are no runs to show." in report(tmp_path, []).text


def test_the_words_for_what_a_defense_did() -> None:
    assert acted({}) == ""
    assert acted({"defense": {"masked_share": 0.1234, "trimmed_tail": 2}}) == "masked share 12.3 %; trimmed tail 2"
    assert acted({"defense": {"scores": [0.5, 2, 1.25]}}) == "scores 0.5 to 2"
    assert acted({"defense": {"selected": [0, 1]}}) == "kept 2 updates"
    line = {"sampled": [4, 5, 6, 7], "dropped": [{"client": 5}], "sampled_malicious": [5, 7]}
    # The rows 0, 1, 2 are the clients 4, 6, 7: client 5 sent nothing usable.
    assert acted({**line, "defense": {"selected": [0, 2]}}) == "kept 2 of 3 updates, 1 of 1 malicious ones"
    assert len(acted({"defense": {f"figure_{n}": n for n in range(100)}})) == 160


def test_it_can_be_read_without_colours_eyes_or_a_wide_window(tmp_path: Path) -> None:
    page = report(tmp_path, [make_run(tmp_path / "run").path])
    assert all("scope" in attributes for tag, attributes in page.tags if tag == "th")
    charts = [attributes for tag, attributes in page.tags if tag == "svg" and attributes.get("role") == "img"]
    assert [str(chart["aria-label"]) for chart in charts] == [
        "Accuracy by round: run ends at 0.600",
        "Attack success rate by round: run ends at 0.250",
    ]
    for scheme in re.findall(r":root \{(.*?)\n *\}", (TEMPLATES / "style.css.jinja").read_text(), flags=re.DOTALL):
        colors = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", scheme))
        for ground in (colors["paper"], colors["card"], colors["tint"]):
            assert all(contrast(colors[name], ground) >= 4.5 for name in ("ink", "soft", "link", "amber", "red"))
        assert all(contrast(colors[f"color-{number}"], colors["card"]) >= 3 for number in range(6))


def contrast(first: str, second: str) -> float:
    """Return the contrast ratio of WCAG 2.2."""
    channels = [[int(color[index : index + 2], 16) / 255 for index in (1, 3, 5)] for color in (first, second)]
    linear = [[v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in color] for color in channels]
    dark, light = sorted(0.2126 * red + 0.7152 * green + 0.0722 * blue for red, green, blue in linear)
    return (light + 0.05) / (dark + 0.05)


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here to lay the page out")
def test_the_page_does_not_scroll_sideways(tmp_path: Path) -> None:
    long = "w" * 120
    runs = [make_run(tmp_path / name, attack=long).path for name in ("short", long, "a-b-" * 40)]
    # With a heatmap, and a row of several seeds.
    runs += [make_run(tmp_path / f"other{seed}", strategy=long, attack="b" + long, seed=seed).path for seed in (0, 1)]
    runs += [make_run(tmp_path / f"third{place}", attack=f"{place}{long}").path for place in range(4)]
    (runs[0] / "trigger.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (2000).to_bytes(4) + (90).to_bytes(4))
    (tmp_path / ("damaged" * 20)).mkdir()
    page = report(tmp_path, [*runs, tmp_path / ("damaged" * 20)], title=long)
    assert "Defense against attack" in page.text
    (tmp_path / "report.html").write_text(page.source.replace("<details", "<details open"))
    # Headless Chromium has a smallest window of about 500 pixels; a frame can be narrower.
    (tmp_path / "frames.html").write_text(
        """<body><iframe src="report.html" width="1280" height="900"></iframe>
        <iframe src="report.html" width="400" height="900"></iframe><script>onload = () => {
        document.title = JSON.stringify([...document.querySelectorAll("iframe")].map(frame => {
        const page = frame.contentDocument.documentElement;
        return [page.clientWidth, page.scrollWidth, page.querySelector(".results").scrollWidth]; })) }</script>"""
    )
    done = subprocess.run(
        [
            str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
            "--allow-file-access-from-files", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom",
            (tmp_path / "frames.html").as_uri(),
        ],
        capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    found = re.search(r"<title>(.*?)</title>", done.stdout)
    assert found, done.stderr
    (*wide, _), (*narrow, table) = json.loads(found[1])
    assert (wide, narrow) == ([1280, 1280], [400, 400])
    assert table > 400  # it scrolls inside its own box


def seeds_of(tmp_path: Path, strategy: str, attack: str, rates: list[float], **settings: Any) -> list[Path]:
    """Make runs that differ in their seed and their attack success rate alone."""
    return [
        make_run(tmp_path / f"{strategy}-{attack}-{seed}", rate=rate, strategy=strategy, attack=attack, seed=seed,
                 defense={"masked_share": 0.25 * seed}, **settings).path
        for seed, rate in enumerate(rates)
    ]  # fmt: skip


def test_runs_that_differ_in_their_seed_alone_share_a_row_and_a_curve(tmp_path: Path) -> None:
    paths = [*seeds_of(tmp_path, "median", "sign_flip", [0.2, 0.4, 0.6]), make_run(tmp_path / "alone").path]
    page = report(tmp_path, paths)
    rows = [row for row in page.rows if len(row) == 11][1:]
    assert [row[0] for row in rows] == ["1 3 seeds", "2 alone"]
    assert rows[0][5] == "0.400 ± 0.200"  # the deviation of the sample: sqrt(0.08 / 2)
    assert rows[1][5] == "0.250"
    # One band around the attack success rate and one around the share that was cut away; accuracy does not differ,
    # so its band has no height.
    bands = [str(attributes["d"]) for tag, attributes in page.tags if attributes.get("class") == "band"]
    assert len(bands) == 3
    assert Counter(tag for tag, _ in page.tags)["details"] == 4  # every run has its own command and settings
    assert "Share that the defense cut away" in page.text


def test_a_run_on_its_way_is_no_end(tmp_path: Path) -> None:
    paths = seeds_of(tmp_path, "median", "sign_flip", [0.2, 0.4])
    late = make_run(tmp_path / "late", strategy="median", attack="sign_flip", seed=9, rate=1.0, done=1)
    rows = [row for row in report(tmp_path, [*paths, late.path]).rows if len(row) == 11][1:]
    assert [(row[0], row[5]) for row in rows] == [("1 2 of 3 seeds unfinished", "0.300 ± 0.141")]


def test_the_same_seed_twice_is_no_repetition(tmp_path: Path) -> None:
    page = report(tmp_path, [make_run(tmp_path / name, strategy="median", seed=4).path for name in "ab"])
    assert [row[0] for row in page.rows if len(row) == 11][1:] == ["1 a", "2 b"]
    assert "±" not in page.text


def test_defenses_stand_against_attacks(tmp_path: Path) -> None:
    paths = [
        *seeds_of(tmp_path, "median", "sign_flip", [0.2, 0.4]),
        *seeds_of(tmp_path, "krum", "sign_flip", [0.5]),
        *seeds_of(tmp_path, "krum", "gaussian", [0.9]),
    ]
    page = report(tmp_path, paths)
    at = page.rows.index(["Defense", "sign_flip", "gaussian"])
    assert page.rows[at + 1 : at + 3] == [["median", "0.600", "–"], ["krum", "0.600", "0.600"]]
    at = page.rows.index(["Defense", "sign_flip", "gaussian"], at + 1)
    assert page.rows[at + 1 : at + 3] == [["median", "0.300", "–"], ["krum", "0.500", "0.900"]]
    one_attack = report(tmp_path, paths[:3])
    assert "Defense against attack" not in one_attack.text


def test_what_two_tasks_gave_is_neither_averaged_nor_laid_over_each_other(tmp_path: Path) -> None:
    rates = {("digits", "krum"): 0.2, ("digits", "median"): 0.3, ("mnist", "krum"): 0.8, ("mnist", "median"): 0.9}
    paths = [
        make_run(tmp_path / task / strategy / attack, rate=rate, task=task, strategy=strategy, attack=attack).path
        for (task, strategy), rate in rates.items()
        for attack in ("sign_flip", "gaussian")
    ]
    (tmp_path / "empty").mkdir()
    page = report(tmp_path, [*paths, tmp_path / "empty"])
    assert page.rows[0][1:3] == ["Task", "Strategy"]
    assert [row[1] for row in page.rows if len(row) == 12][1:] == ["digits"] * 4 + ["mnist"] * 4
    places = [place for place, row in enumerate(page.rows) if row == ["Defense", "sign_flip", "gaussian"]]
    assert [page.rows[place + 1] for place in places[1::2]] == [["krum", "0.200", "0.200"], ["krum", "0.800", "0.800"]]
    for heading in ("Accuracy, digits", "Attack success rate, digits", "Accuracy, mnist", "Attack success rate, mnist"):
        assert heading in page.text
    labels = [str(attributes.get("aria-label")) for tag, attributes in page.tags if attributes.get("role") == "img"]
    [chart] = [label for label in labels if label.startswith("Attack success rate, mnist")]
    assert chart.count("ends at") == 4


def test_a_mean_over_other_settings_says_so_and_rows_say_what_differs(tmp_path: Path) -> None:
    paths = [
        make_run(tmp_path / f"{strategy}-{attack}-{rate}", strategy=strategy, attack=attack, learning_rate=rate).path
        for strategy in ("krum", "median")
        for attack in ("sign_flip", "gaussian")
        for rate in (0.1, 0.5)
    ]
    page = report(tmp_path, paths)
    assert "A cell is the mean over runs that differ in learning rate." in page.text
    assert page.rows[1][1:3] == ["krumlearning rate: 0.1", "sign_flip"]
    assert "A cell is the mean" not in report(tmp_path, paths[::2]).text


def test_noise_cuts_nothing_away(tmp_path: Path) -> None:
    noisy = make_run(tmp_path / "run", strategy="weak_dp", defense={"clipped_share": 0.5, "noise_share": 0.9})
    labels = [str(attributes.get("aria-label")) for _, attributes in report(tmp_path, [noisy.path]).tags]
    assert "Share that the defense cut away by round: run ends at 0.500" in labels


def test_purification_moves_and_cuts_nothing_away_and_is_no_defense_of_the_clients(tmp_path: Path) -> None:
    made = make_run(
        tmp_path / "run", strategy="collaborative_inference", defense={"moved_share": 1.0, "rejected_share": 0.0}
    )
    config = json.loads((made.path / "config.json").read_text())
    config["settings"]["defense"] = "copur(tau=3.0)"
    (made.path / "config.json").write_text(json.dumps(config))
    page = report(tmp_path, [made.path])
    labels = [str(attributes.get("aria-label")) for _, attributes in page.tags]
    assert "Share that the defense cut away by round: run ends at 0.000" in labels
    assert "defense: copur(tau=3.0)" in page.text
    assert "clients: " not in page.text


def test_a_defense_that_never_acted_is_flagged(tmp_path: Path) -> None:
    kept_all = {"selected": [0, 1, 2]}  # one of four replies was dropped
    idle = make_run(tmp_path / "idle", strategy="multi_krum", defense=kept_all)
    half = {"selected": [1], "clients_clipped_share": 0.0, "clients_noise_share": 0.0}
    mute = make_run(tmp_path / "mute", strategy="krum", defense=half)  # the one on the clients did nothing
    make_run(tmp_path / "silent", strategy="median", defense={"scores": [1.0]})  # its figures do not say
    busy = make_run(tmp_path / "busy", strategy="krum", defense={"selected": [1]})
    mean = make_run(tmp_path / "mean")
    page = report(tmp_path, [*(run.path for run in (idle, mute, busy, mean)), tmp_path / "silent"])
    rows = [row for row in page.rows if len(row) == 11][1:]
    flagged = {row[0].split()[1] for row in rows if "never acted" in row[6]}
    assert flagged == {"idle", "mute"}


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here to run the page's script")
def test_a_click_on_a_heading_sorts(tmp_path: Path) -> None:
    rates = {"first": 0.5, "second": None, "third": 0.125}
    page = report(tmp_path, [make_run(tmp_path / name, rate=rate).path for name, rate in rates.items()])
    click = """<iframe src="out/report.html"></iframe><script>onload = () => {
        const page = document.querySelector("iframe").contentDocument;
        const names = () => [...page.querySelectorAll(".results tbody a")].map(link => link.textContent);
        const button = page.querySelectorAll(".results thead button")[5];
        const seen = [names()]; button.click(); seen.push(names()); button.click(); seen.push(names());
        document.title = JSON.stringify(seen); }</script>"""
    assert page.rows
    (tmp_path / "frame.html").write_text(click)
    words = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
             "--allow-file-access-from-files", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]  # fmt: skip
    done = subprocess.run(
        [str(CHROMIUM), *words, (tmp_path / "frame.html").as_uri()],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    found = re.search(r"<title>(.*?)</title>", done.stdout)
    assert found, done.stderr
    assert json.loads(found[1]) == [
        ["first", "second", "third"], ["third", "first", "second"], ["first", "third", "second"],
    ]  # fmt: skip


def seen_run(tmp_path: Path, inverted: Any, name: str, *inversions: dict[str, Any], **values: Any) -> Path:
    """Make a run with finished inversions and their pictures."""
    path = make_run(tmp_path / name).path
    write_inversion_pictures(inverted(path, *inversions, **values))
    return path


def captions(page: Page) -> str:
    section = page.text.partition("What a curious server reconstructs")[2]
    return " ".join(section.partition("The command that repeats it")[0].split())


def test_reconstructed_images_are_shown_with_what_they_came_from(tmp_path: Path, inverted: Any) -> None:
    images, steps = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 200])
    snapshots = {"snapshots": images.expand(2, -1, -1, -1, -1), "snapshot_steps": steps}
    known = {"images": images, "originals": images, "psnr": [10.0, None], "ssim": [0.25, 0.75], **snapshots}
    failed = {"images": images, "failure": "the loss was not finite", "psnr": [20.0, 30.0], "ssim": None}
    scored = seen_run(tmp_path, inverted, "scored", known, failed, warnings=["Too large a learning rate."])
    blind = {"images": images, "psnr": None, "ssim": None, "unscored": "nobody has the originals"}
    unscored = seen_run(tmp_path, inverted, "unscored", blind, peak_memory_mib=None)
    page = report(tmp_path, [scored, unscored, make_run(tmp_path / "plain").path])
    assert captions(page).startswith(
        "agic(steps=200) in scored: 4 images of 2 updates (rounds 1); mean PSNR 20.00 dB, SSIM 0.500; "
        "LPIPS needs a file, which is not there; 12.3 s, at most 512 MiB "
        "Too large a learning rate. Round 1, client 1 ended early: the loss was not finite "
        "agic(steps=200) in unscored: 2 images of 1 update (rounds 1); no score: nobody has the originals; 12.3 s Runs"
    )
    shown = [{name: str(value) for name, value in found.items()} for tag, found in page.tags if tag == "img"]
    assert [picture["alt"].partition(" ")[0] for picture in shown] == ["Images", "How", "Images"]
    assert all(picture["src"].startswith("data:image/png;base64,") for picture in shown)
    assert all(int(picture["width"]) > int(picture["height"]) > 100 for picture in shown)


def test_runs_without_inversions_have_no_word_of_them(tmp_path: Path) -> None:
    page = report(tmp_path, [make_run(tmp_path / "run").path])
    assert "curious server" not in page.text
    assert "PSNR" not in page.text


def test_of_many_warnings_and_failures_some_are_told(tmp_path: Path, inverted: Any) -> None:
    failed = [{"images": torch.zeros(1, 1, 8, 8), "failure": "f" * 5000} for _ in range(12)]
    page = report(tmp_path, [seen_run(tmp_path, inverted, "run", *failed, warnings=[f"warning {n}" for n in range(7)])])
    assert "warning 4 and 2 more Round 1, client 0 ended early" in captions(page)
    assert "client 4" in captions(page)
    assert "client 5" not in captions(page)
    assert "and 7 more" in captions(page)
    assert max(map(len, captions(page).split())) < 2100


def test_damaged_inversions_are_a_sentence_beside_a_whole_run(
    tmp_path: Path, inverted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = {"images": torch.zeros(1, 1, 8, 8)}
    for number, content in enumerate((b"", b"{", b"null", b"\xff", b"[" * 100_000, b'{"curious": 3}')):
        (seen_run(tmp_path / "bad", inverted, f"bad{number}", image) / "inversions.json").write_bytes(content)
    (make_run(tmp_path / "bad" / "folder").path / "inversions.json").mkdir()
    bad = sorted((tmp_path / "bad").iterdir())
    page = report(tmp_path, bad)
    assert "damaged" not in {str(attributes.get("class")) for _, attributes in page.tags}
    told = captions(page)
    assert told.count("inversions.json cannot be read: ") == 7
    assert told.count("inversions.json cannot be read: Invalid JSON: ") == 4
    fake, missing = (seen_run(tmp_path / "odd", inverted, name, image) for name in ("fake", "missing"))
    (fake / "inversions.png").write_text("<svg onload=alert(1)>")
    (missing / "inversions.png").unlink()
    told = captions(report(tmp_path, [fake, missing]))
    assert "inversions.png is not shown: it is no PNG of at most 4,000,000 bytes." in told
    assert "There is no inversions.png." in told
    monkeypatch.setattr("thornbed.experiments.report.pictures.LARGEST_PICTURE", 100)
    large = report(tmp_path, [seen_run(tmp_path, inverted, "large", image)])
    assert "img" not in {tag for tag, _ in large.tags}


def test_nothing_of_an_inversion_becomes_markup(tmp_path: Path, inverted: Any) -> None:
    def made(parent: str, text: str) -> Page:
        image = {"images": torch.zeros(1, 1, 8, 8), "failure": text, "unscored": text, "psnr": None}
        values = {"curious": text, "observed": text, "warnings": [text]}
        return report(tmp_path / parent, [seen_run(tmp_path / parent, inverted, "run", image, **values)])

    good, evil = made("good", "plain"), made("evil", EVIL)
    assert Counter(tag for tag, _ in evil.tags) == Counter(tag for tag, _ in good.tags)
    assert not [key for _, attributes in evil.tags for key in attributes if key.startswith("on")]
    assert captions(evil).count(EVIL) == 5
    assert str(7777 * 7777) not in evil.source
