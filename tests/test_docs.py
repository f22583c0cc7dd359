"""What the documentation shows is tried: its code runs, its flags, links, files and names exist."""

import ast
import importlib
import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import torch
import typer
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from safetensors.torch import load_file

from tests.conftest import copy_of_the_house, read_lines, typed_in
from thornbed.experiments.cli import app
from thornbed.flower_apps.engines.inline import InlineGrid
from thornbed.flower_apps.settings import Settings, plugins

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FOLDERS = "attacks|defenses|tasks|clients|protocol|strategies|flower_apps|experiments"
EXTENDING = ROOT / "docs" / "extending.md"
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)

# What a newcomer adds by the page: the file, the contract of its kind, and the least number of its tests that pass.
ADDED = {
    "defenses/aggregation/clipped_mean.py": ("aggregation", 10),
    "attacks/update/a_little_is_enough.py": ("update_attack", 10),
    "tasks/breast_cancer.py": ("task", 8),
    "strategies/lookahead_momentum.py": ("strategy", 10),
    "experiments/figures/accuracy_by_run.py": ("figure", 3),
}
# Flags of programs that are not ours.
OTHERS = {
    "flower-superlink": "--insecure --host --port --ssl-ca-certfile --ssl-certfile --ssl-keyfile --simulation",
    "flower-supernode": "--insecure --superlink --port --root-certificates --node-config",
    "flwr": "--stream --federation-config --run-config --enable-supernode-auth",
    "run.sh test": "--nightly",
    "pip": "--no-deps --target",
}


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def files(page: Path) -> dict[str, str]:
    """Return the files that a page tells its reader to make, by path: a block below a line that is the path."""
    text = page.read_text(encoding="utf-8")
    return dict(re.findall(r"`([\w/]+\.py)`:\n\n```python\n(.*?)```", text, flags=re.DOTALL))


def example(page: Path, mark: str) -> dict[str, object]:
    """Execute the block of a page that has some words in it, and return its names."""
    [block] = [block for block in blocks(page, "python") if mark in block]
    names: dict[str, object] = {}
    exec(compile(block, page.name, "exec"), names)
    return names


@every_page
def test_links_to_files_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


@every_page
def test_links_within_the_page_lead_to_a_heading(page):
    text = page.read_text(encoding="utf-8")
    headings = {re.sub(r"[^\w -]", "", line.lower()).replace(" ", "-") for line in re.findall(r"^#+ (.+)$", text, re.M)}
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= headings


@every_page
def test_python_blocks_are_python(page):
    for block in blocks(page, "python"):
        ast.parse(block)


@every_page
def test_flags_of_run_are_flags(page):
    flags = {f"--{name.replace('_', '-')}" for name in Settings.model_fields}
    for block in blocks(page, "bash"):
        for command in re.findall(
            r"(?:thornbed|run\.sh) run (.*?)(?:#|\n(?!\s)|$)", block.replace("\\\n", " "), re.DOTALL
        ):
            assert set(re.findall(r"(?<!\S)--[a-z-]+", command)) <= flags, command


@every_page
def test_every_flag_that_is_spoken_of_is_one(page):
    commands = typer.main.get_command(app).commands.values()
    ours = {flag for command in commands for parameter in command.params for flag in parameter.opts}
    known = ours | {"--help"} | {flag for flags in OTHERS.values() for flag in flags.split()}
    for script in (ROOT / "benchmarks").glob("*.py"):
        known |= set(re.findall(r'add_argument\("(--[a-z-]+)"', script.read_text(encoding="utf-8")))
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", page.read_text(encoding="utf-8"))) <= known


@every_page
def test_files_and_folders_of_this_project_that_are_named_are_there(page):
    named = re.findall(rf"`((?:{FOLDERS}|tests|benchmarks|docs)/[\w./-]*)`", page.read_text(encoding="utf-8"))
    named = [path for path in named if not re.search(r"\b[A-Z]{2,}\b", path)]  # experiments/presets/PAPER/TABLE.toml
    new = {path.removesuffix(".py") for path in files(page)}
    missing = [path for path in named if not (ROOT / path).exists() and path.removesuffix(".py") not in new]
    assert missing == []


@every_page
def test_names_of_this_project_that_are_named_are_there(page):
    text = page.read_text(encoding="utf-8")
    for name in re.findall(rf"`(?:thornbed\.)?((?:{FOLDERS})(?:\.\w+)+)[`(]", text):
        if not name.endswith(".py"):
            thing(f"thornbed.{name}")


def thing(name: str) -> object:
    """Return a module, or what is in one, by its dotted name."""
    module, _, last = name.rpartition(".")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        return getattr(importlib.import_module(module), last)


def test_every_folder_of_plug_ins_has_a_row_with_the_flag_that_takes_it():
    rows = re.findall(r"^\| `([\w/]+)/` \| (.*?) \|", EXTENDING.read_text(encoding="utf-8"), flags=re.M)
    flags = dict(rows)
    assert len(flags) == len(rows)
    assert set(flags) == {folder for folders in plugins.FOLDERS.values() for folder in folders} | {
        "flower_apps/schemes"
    }
    for kind, folders in plugins.FOLDERS.items():
        # what divides features is named where what divides rows is, and a bottom model where a model is
        flag = {"blocks": "`--partition`", "bottom": "`--model`", "figure": "`figure`"}.get(kind, f"`--{kind}`")
        assert all(flag in flags[folder] for folder in folders), kind


def test_every_plug_in_that_the_readme_names_is_there():
    table = (ROOT / "README.md").read_text(encoding="utf-8").partition("| flag | what there is |")[2]
    rows = re.findall(r"^\| `(?:--)?(\w+)`[^|]*\| (.*) \|$", table.partition("\n\n")[0], flags=re.M)
    assert {kind for kind, _ in rows} >= {"task", "model", "strategy", "attack", "defense", "partition", "figure"}
    for kind, text in rows:
        more = {"partition": "blocks", "model": "bottom"}.get(kind, kind)
        known = {*plugins.available(kind), *plugins.available(more), "natural"}
        words = re.findall(r"`(\w+)(?:\([^`]*\))?`", text)
        strategies = set(plugins.available("strategy"))  # which the row says that an attack or a defense is for
        assert [word for word in words if word not in known | strategies] == [], kind


def test_every_key_of_a_node_that_the_page_explains_is_read_and_none_is_left_out():
    page = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "flower_apps").rglob("*.py"))
    read = set(re.findall(r'(?:node_config|said)\.get\("([a-z-]+)"', source))
    read |= set(re.findall(r'clients_in\(\w+, "([a-z-]+)"', source))
    [both] = re.findall(r"for key in \((.*?)\) if key in context\.node_config", source)
    assert set(re.findall(r"^\| `([a-z-]+)` \|", page, flags=re.M)) == read | set(re.findall(r'"([a-z-]+)"', both))


@pytest.fixture(scope="module")
def added(tmp_path_factory):
    """Return a copy of the house with every file that the page adds, as its reader would have it."""
    house = copy_of_the_house(tmp_path_factory.mktemp("added") / "house")
    for path, text in files(EXTENDING).items():
        (house / path).parent.mkdir(parents=True, exist_ok=True)
        (house / path).write_text(text, encoding="utf-8")
    return house


@pytest.fixture(scope="module")
def tried(added):
    """Return what contracts say of the files that the page adds: by name, how many tests passed, and what failed."""
    names = [Path(path).stem for path in ADDED]
    contracts = [f"tests/contracts/test_{contract}_contract.py" for contract, _ in ADDED.values()]
    words = ["-k", " or ".join(names), "-p", "no:cacheprovider", "--junitxml", "tried.xml"]
    env = {**os.environ, "PYTHONPATH": str(added)}
    command = [sys.executable, "-m", "pytest", "-q", *contracts, *words]
    done = subprocess.run(command, cwd=added, env=env, capture_output=True, text=True, check=False)
    assert (added / "tried.xml").is_file(), done.stdout[-3000:] + done.stderr[-3000:]
    cases = list(ElementTree.parse(added / "tried.xml").iter("testcase"))
    passed, failed = dict.fromkeys(names, 0), {name: list[str]() for name in names}
    for case in cases:
        for name in names:
            if name in str(case.get("name")):
                passed[name] += not len(case)
                failed[name] += [each.get("message", "") for each in case if each.tag in ("failure", "error")]
    return passed, failed


def test_the_page_adds_a_file_of_each_kind():
    assert set(files(EXTENDING)) >= set(ADDED)


def test_the_readme_adds_the_same_defense():
    for path, text in files(ROOT / "README.md").items():
        assert files(EXTENDING)[path] == text


@pytest.mark.parametrize(("path", "least"), [(path, least) for path, (_, least) in ADDED.items()])
def test_what_the_page_adds_passes_the_contract_of_its_kind(tried, path, least):
    passed, failed = tried
    assert failed[Path(path).stem] == []
    assert passed[Path(path).stem] >= least


def test_what_the_page_adds_is_listed_with_its_source(added):
    typed = typed_in(added, "list", "--format", "json")
    assert typed.code == 0, typed.err
    listed = {f"{plugin['folder']}/{plugin['name']}.py": plugin for plugin in json.loads(typed.out)}
    for path in ADDED:
        assert listed[path]["source"]


def test_what_the_page_adds_runs_together(added, tmp_path):
    """A task, a strategy, a defense and an attack: names are all that the command line needs."""
    few = ["--task", "breast_cancer", "--num-clients", 5, "--rounds", 2, "--partition", "iid"]
    attack = ["--attack", "a_little_is_enough(deviations=4.0)", "--num-malicious", 2]
    typed = typed_in(added, "run", *few, *attack, "--strategy", "clipped_mean(norm=0.5)", "--output", tmp_path / "run")
    assert typed.code == 0, typed.err
    last = read_lines(tmp_path / "run")[-1]
    assert last["defense"]["clipped_share"] >= 0
    assert last["attack"] == {"rows": [2.0, 2.0]}
    assert last["dropped"] == []


@pytest.fixture
def newcomers(plug_in):
    """Add the page's files to this process, and return them as modules by their names."""
    return {
        Path(path).stem: plug_in(str(Path(path).parent), Path(path).stem, text)
        for path, text in files(EXTENDING).items()
        if path in ("tasks/breast_cancer.py", "strategies/lookahead_momentum.py")
    }


def test_the_task_of_the_page_is_learned(thornbed, newcomers, tmp_path):
    assert thornbed("run", "--task", "breast_cancer", "--output", tmp_path / "run").code == 0
    accuracy = [line["accuracy"] for line in read_lines(tmp_path / "run")]
    assert accuracy[0] < 0.8
    assert accuracy[-1] > 0.9


def flowers_template(seen=None):
    """Return a client app that answers as those of `flwr new` do, and whose training adds 1 to every parameter."""
    template = ClientApp()

    @template.train()
    def train(message, context):
        model = message.content["arrays"].to_torch_state_dict()
        if seen is not None:
            seen.append(model["w"].tolist())
        record = ArrayRecord({name: tensor + 1.0 for name, tensor in model.items()})
        metrics = MetricRecord({"train_loss": 0.5, "num-examples": 8})
        return Message(content=RecordDict({"arrays": record, "metrics": metrics}), reply_to=message)

    return template


def test_the_strategy_of_the_page_begins_its_rounds_where_its_momentum_leads(newcomers):
    """In numbers made by hand: training adds 1, and half of the move before is made once more."""
    sent, models = [], []
    strategy = newcomers["lookahead_momentum"].LookaheadMomentum(momentum=0.5)
    strategy.start(
        InlineGrid(flowers_template(sent), 2, {}),
        ArrayRecord({"w": torch.zeros(1)}),
        num_rounds=3,
        evaluate_fn=lambda server_round, arrays: models.append(arrays["w"].numpy().item()),
    )
    assert sent == [[0.0], [0.0], [1.5], [1.5], [3.25], [3.25]]
    assert models == [0.0, 1.0, 2.5, 4.25]
    assert strategy.memory["move"].item() == 1.75


def test_the_strategy_of_the_page_goes_on_to_the_same_bytes(thornbed, newcomers, tmp_path):
    few = ["--task", "digits(num_train=200, num_test=50)", "--model", "mlp(hidden=(8,))", "--num-clients", 4]
    momentum = ["--strategy", "lookahead_momentum"]
    for name, words in {
        "whole": [*momentum, "--rounds", 4],
        "parts": [*momentum, "--rounds", 2],
        "without": ["--strategy", "lookahead_momentum(momentum=0.0)", "--rounds", 4],
        "fedavg": ["--rounds", 4],
    }.items():
        assert thornbed("run", *few, *words, "--output", tmp_path / name).code == 0
    assert thornbed("run", "--resume", "--rounds", 4, "--output", tmp_path / "parts").code == 0
    files = {path.parent.name: path for path in tmp_path.glob("*/model.safetensors")}
    assert files["parts"].read_bytes() == files["whole"].read_bytes()
    # A file says whose run it is; what it holds is the same without momentum.
    model = {name: {key: each.tolist() for key, each in load_file(path).items()} for name, path in files.items()}
    assert model["whole"] != model["fedavg"] == model["without"]


def test_the_rule_without_an_engine_gives_a_step():
    assert example(EXTENDING, "step = invariant(")["step"].shape == (1000,)


def test_the_inversion_without_an_engine_finds_images():
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 4 * 4, 10))
    images = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    psnr = example(EXTENDING, "def attacked(")["attacked"](network, images, torch.tensor([1, 7]), steps=40, beta=1.0)
    assert psnr.shape == (2,)
    assert bool((psnr > 5).all())


def test_the_purification_without_an_engine_recovers_what_a_liar_hides(capsys):
    rows = torch.randn(64, 1, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).repeat(1, 5, 1)
    found = example(EXTENDING, "def recovered(")["recovered"](rows, rows[:3])
    torch.testing.assert_close(found, rows[:3], rtol=0, atol=1e-3)
    assert capsys.readouterr().out.split()[1] == "2"  # of five agents that agree two may lie


def test_the_strategies_work_with_a_client_app_of_flowers_templates(capsys):
    strategy = example(EXTENDING, "from flwr.serverapp import ServerApp")["strategy"]
    strategy.inner.cohort.wait_seconds = 5
    grid = InlineGrid(flowers_template(), 3, {})
    result = strategy.start(grid, ArrayRecord({"w": torch.zeros(2)}), num_rounds=2)
    assert result.arrays["w"].numpy().tolist() == [2.0, 2.0]
    assert capsys.readouterr().out.split()[1::2] == ["8.0"] * 6
    assert strategy.inner.account.dropped == []


def test_flowers_options_of_the_page_work():
    strategy = example(EXTENDING, "train_metrics_aggr_fn=median_metrics")["strategy"]
    result = strategy.start(InlineGrid(flowers_template(), 6, {}), ArrayRecord({"w": torch.zeros(2)}), num_rounds=1)
    assert dict(result.train_metrics_clientapp[1]) == {"train_loss": 0.5}
    assert len(strategy.account.sampled) == 3


def test_the_imports_for_other_flower_apps_work():
    from thornbed.defenses.aggregation.krum import krum
    from thornbed.strategies import Curious, FedAvg, InvariantAggregation

    assert Curious(FedAvg(rule=krum), print).inner.rule is krum
    assert InvariantAggregation(tau=0.5).rule.keywords["tau"] == 0.5


def test_the_recorder_that_the_page_adds_records(tmp_path, monkeypatch):
    from thornbed.protocol.recordings import load_update
    from thornbed.strategies import FedAvg, Sighting

    monkeypatch.chdir(tmp_path)
    [block] = blocks(ROOT / "docs" / "inversion.md", "python")
    names = {"strategy": FedAvg()}
    exec(compile(block, "inversion.md", "exec"), names)
    models = [{"w": torch.zeros(2)}, {"w": torch.ones(2)}]
    sighting = Sighting(server_round=3, node_id=7, sent=models[0], received=models[1], num_examples=8.0)
    names["strategy"].observer(sighting)
    assert load_update(tmp_path / "recordings" / "3-7.safetensors").received["w"].tolist() == [1.0, 1.0]
