"""Specs and plug-ins: what is accepted, and one sentence for everything that is not."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

from thornbed.flower_apps.settings import plugins
from thornbed.flower_apps.settings.plugins import BadSpec, Option, load, parse, parse_sum

EVERY = [(kind, name) for kind in plugins.FOLDERS for name in plugins.available(kind)]


def test_specs_are_names_with_literal_options():
    assert parse("krum").options == {}
    assert parse("krum( num_byzantine = 4 )").options == {"num_byzantine": 4}
    assert parse("x(a=-1, b=(1, 'two'), c=None)").options == {"a": -1, "b": (1, "two"), "c": None}
    assert str(parse("at2fl(mode=direct)")) == "at2fl(mode='direct')"
    assert [spec.name for spec in parse_sum("edge_case(target=9) + scaling() + collude")] == [
        "edge_case",
        "scaling",
        "collude",
    ]
    assert str(parse("invariant(tau=0.2, alpha=0.25)")) == "invariant(tau=0.2, alpha=0.25)"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "krum(",
        "krum(4)",
        "krum(**{'f': 1})",
        "krum(f=g())",
        "krum(f=(g, h))",
        "krum(f=open('x'))",
        "a.b(c=1)",
        "__import__('os').system('true')",
        "krum(f=1, f=2)",
        "krum - 1",
        "lambda: 0",
        "krum(f=" + "(" * 500 + ")" * 500 + ")",
        "krum\0",
    ],
)
def test_anything_else_is_refused_in_one_sentence(text):
    with pytest.raises(BadSpec) as refused:
        parse(text)
    assert "\n" not in str(refused.value).strip("\n") or "\n" in text


def test_what_is_listed_can_be_made():
    """An abstract class is where plug-ins come from, and none itself."""
    assert not [each for each in EVERY if inspect.isabstract(plugins.find(*each))]


def test_unknown_names_get_a_suggestion():
    with pytest.raises(BadSpec, match="there is no strategy called krumm; did you mean krum"):
        load("strategy", "krumm")


def test_options_are_checked_by_name_and_type():
    taken = re.escape("krum has no option f; it takes num_byzantine: int | None")
    with pytest.raises(BadSpec, match=taken):
        load("strategy", "krum(f=4)")
    with pytest.raises(BadSpec, match=r"krum takes num_byzantine: int .*, not 'four'"):
        load("strategy", "krum(num_byzantine='four')")
    with pytest.raises(BadSpec, match="not True"):
        load("strategy", "krum(num_byzantine=True)")
    assert load("strategy", "invariant(tau=0)").keywords == {"tau": 0}


def test_paths_are_taken_relative_to_the_data(tmp_path):
    assert load("attack", "edge_case", tmp_path).file == tmp_path / "southwest.npz"
    assert load("attack", "edge_case(file='x.npz')", tmp_path).file == tmp_path / "x.npz"
    assert load("attack", "edge_case(file='/abs/x.npz')", tmp_path).file == Path("/abs/x.npz")


def test_listing_names_imports_nothing():
    code = (
        "import sys; from thornbed.flower_apps.settings import plugins;"
        "[plugins.available(k) for k in plugins.FOLDERS];"
        "sys.exit(any(m in sys.modules for m in ('torch', 'flwr', 'thornbed.attacks.data.edge_case')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_every_plugin_says_what_it_is_and_where_it_comes_from(kind, name):
    plugin = plugins.describe(kind, name)
    assert plugin.summary.endswith((".", "?"))
    assert 10 < len(plugin.summary) <= 120
    if kind not in ("engine", "optimizer"):
        assert len(plugin.source) > 10, f"{plugin.folder}/{name}.py has no paragraph 'Paper: ' or 'Source: '"
    assert all(option.type for option in plugin.options)


def test_options_are_described_as_python_writes_them():
    options = plugins.describe("strategy", "invariant").options
    assert Option("tau", "float", "0.2") in options
    assert Option("alpha", "float", "0.25") in options


def test_a_name_for_several_values_is_described_by_them():
    options = plugins.describe("curious", "agic").options
    assert Option("decay", "Literal['none', 'step', 'cosine']", "'none'") in options
    with pytest.raises(plugins.BadSpec, match=r"agic takes decay: Literal\['none', 'step', 'cosine'\], not 'line'"):
        plugins.load("curious", "agic(decay='line')")


def test_the_names_that_others_rely_on_are_there():
    names = {kind: set(plugins.available(kind)) for kind in plugins.FOLDERS}
    assert {"digits", "mnist", "fashion_mnist", "cifar10", "cifar100_coarse", "svhn"} <= names["task"]
    assert {"mlp", "cnn", "resnet18", "resnet20"} <= names["model"]
    assert {"iid", "dirichlet", "shards"} <= names["partition"]
    rules = {"fedavg", "invariant", "and_mask", "trimmed_mean", "median", "krum", "multi_krum"}
    assert rules <= names["strategy"]
    attacks = {"label_flip", "sign_flip", "gaussian", "scaling", "pixel_trigger", "edge_case"}
    assert attacks <= names["attack"]
    assert {"agic", "inverting_gradients", "dlg_adam"} <= names["curious"]
    assert names["engine"] == {"inline", "simulation", "deployment"}


def test_a_new_rule_is_one_new_file(tmp_path, monkeypatch):
    """What the README promises: a file in the folder, and the command line knows it."""
    folder = tmp_path / "defenses" / "aggregation"
    folder.mkdir(parents=True)
    (folder / "first.py").write_text(
        '"""Take the first client.\n\nPaper: nobody."""\n\n\ndef first(updates, weights, *, row: int = 0):\n'
        "    return updates[row]\n"
    )
    monkeypatch.setattr(plugins, "ROOT", tmp_path)
    import thornbed.defenses.aggregation

    monkeypatch.setattr(thornbed.defenses.aggregation, "__path__", [str(folder)])
    assert plugins.available("strategy") == {"first": "defenses/aggregation"}
    assert load("strategy", "first(row=1)")([1, 2, 3], None) == 2


def test_a_plugin_that_leaves_out_a_verb_is_told_which(tmp_path, monkeypatch):
    (tmp_path / "attacks" / "vertical").mkdir(parents=True)
    (tmp_path / "attacks" / "vertical" / "idle.py").write_text(
        "from thornbed.attacks.vertical import VerticalAttack\n\n\nclass Idle(VerticalAttack):\n    pass\n"
    )
    monkeypatch.setattr(plugins, "ROOT", tmp_path)
    import thornbed.attacks.vertical

    monkeypatch.setattr(thornbed.attacks.vertical, "__path__", [str(tmp_path / "attacks" / "vertical")])
    with pytest.raises(BadSpec, match=r"idle.py lacks what its base class leaves to it: begins, recalled"):
        load("attack", "idle")
