"""The command line as a user types it, right and wrong."""

import json
from importlib.metadata import version

import pytest


def test_it_says_which_versions_it_stands_on(thornbed):
    typed = thornbed("--version")
    assert typed.code == 0
    assert "thornbed 0.2.0" in typed.out
    assert f"flwr {version('flwr')}, torch {version('torch')}" in typed.out
    assert "git " in typed.out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["run", "--rond", "3"], "No such option"),
        (["run", "--rounds", "x"], "--rounds takes a whole number (at least 0), not 'x'"),
        (["run", "--attack-share", "1.5"], "--attack-share takes a number (above 0 and at most 1), not 1.5"),
        (["run", "--rounds"], "requires an argument"),
        (["run", "--strategy", "krumm"], "there is no strategy called krumm; did you mean krum?"),
        (["run", "--strategy", "krum(num_byzantine=4)", "--num-clients", "6"], "krum needs n >= 2f + 3: n = 6, f = 4"),
        (["run", "--strategy", "krum(f=4)"], "krum has no option f; it takes num_byzantine"),
        (["run", "--strategy", "fltrust(num_root=1438)"], "1438 trusted samples; --task digits has 1 to 1437"),
        (["run", "--strategy", "weak_dp(noise=1e308)"], "--strategy takes no step that is finite"),
        (["run", "--task", "cifar10"], "cifar10.npz"),
        (["run", "--attack", "edge_case(file='a\\0b')", "--task", "digits"], "edge_case takes file: "),
        (["run", "--output", "a\0b"], "--output takes text of one line, without control characters, not 'a\\x00b'"),
        (["run", "--task", "digits\n"], "--task takes text of one line"),
        (["run", "--superlink", "host:1"], "--superlink is for --engine deployment"),
        (["run", "--engine", "deployment", "--superlink", "h:1", "--root-certificates", "no.crt"], "no.crt is no file"),
        (["run", "--resume"], "--resume needs --output"),
        (["run", "--resume", "--output", "/no/such/run"], "/no/such/run holds no run"),
        (["run", "--attack", "sign_flip", "--num-malicious", "21"], "--num-malicious 21 is more than --num-clients 20"),
        (["run", "--attack", "dba(size=2, gap=1)", "--num-malicious", "3"], "num_parts = 4, attackers = 3"),
        (["run", "--attack", "text_trigger"], "text_trigger attacks text samples; digits has image samples"),
        (["list", "cheese"], "there is no kind 'cheese'"),
        (["run", "stray"], "unexpected extra argument"),
        (["fly"], "No such command 'fly'"),
    ],
)
def test_bad_input_gets_one_sentence_and_code_2(thornbed, tmp_path, monkeypatch, words, sentence):
    monkeypatch.chdir(tmp_path)
    typed = thornbed(*words)
    assert typed.code == 2
    assert sentence in typed.sentence
    assert typed.err.count("\n") == 1, "one sentence is one line"
    assert not typed.out
    assert not list(tmp_path.iterdir()), "nothing was started or written"


def test_an_output_that_is_a_file_is_refused(thornbed, tmp_path):
    (tmp_path / "file").touch()
    typed = thornbed("run", "--output", tmp_path / "file")
    assert typed.code == 2
    assert "is a file; name a folder" in typed.sentence


@pytest.mark.parametrize("command", ["run", "tour"])
@pytest.mark.parametrize("path", ["/dev/null", "/dev/null/a", "/proc/x"])
def test_an_output_that_cannot_be_made_is_refused(thornbed, command, path):
    typed = thornbed(command, "--output", path)
    assert typed.code == 2
    assert path in typed.sentence
    assert typed.err.count("\n") == 1


def test_help_explains_every_flag(thornbed):
    typed = thornbed("run", "--help")
    assert typed.code == 0
    for words in ("--strategy", "--clients-per-round", "What is run", "Who takes part", "Examples", "the task's own"):
        assert words in typed.out
    ours = typed.out[typed.out.index("--malicious-per-round") : typed.out.index("--attack-share")]
    assert "as many as are drawn" in " ".join(ours.replace("│", " ").split())
    assert "own" not in ours  # no task says how many


def test_list_prints_every_plugin_with_options_and_paper(thornbed):
    typed = thornbed("list")
    assert typed.code == 0
    for name in ("invariant", "pixel_trigger", "local_dp", "resnet20", "dirichlet", "cifar10", "simulation", "AISTATS"):
        assert name in typed.out


def test_list_as_json(thornbed):
    found = json.loads(thornbed("list", "--format", "json").out)
    [invariant] = [plugin for plugin in found if plugin["name"] == "invariant"]
    assert invariant["options"][0] == {"name": "tau", "type": "float", "default": "0.2"}
    assert "Invariant Aggregator" in invariant["source"]
    [scaling] = [plugin for plugin in found if plugin["name"] == "scaling"]
    assert scaling["needs"] == ["its own data", "the server's model"]


def test_without_a_command_the_help_is_shown(thornbed):
    typed = thornbed()
    assert "tour" in typed.out + typed.err
    assert typed.code == 2
