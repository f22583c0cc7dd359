"""The package `thornbed`: one name in a checkout, in a wheel and in Flower's bundle, and nothing else at top level."""

from __future__ import annotations

import fnmatch
import json
import os
import runpy
import subprocess
import sys
import tomllib
import zipfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.parser import Parser
from pathlib import Path

import pytest

from tests.conftest import copy_of_the_house, read_lines, typed_in
from thornbed.flower_apps.engines.flower_command import environment

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SETUPTOOLS = PROJECT["tool"]["setuptools"]
NOT_SHIPPED = {"benchmarks", "examples", "tests"}
TOP = sorted({path.parent.name for path in ROOT.glob("[!.]*/*.py")} - NOT_SHIPPED - {"thornbed"})
FILES = sorted(
    path.relative_to(ROOT)
    for folder in ("thornbed", *TOP)
    for path in (ROOT / folder).rglob("*")
    if path.is_file() and not path.name.startswith(".") and "__pycache__" not in path.parts
)


def packaged(path: Path) -> Path:
    """Return where a file of the checkout lies in a wheel."""
    return path if path.parts[0] == "thornbed" else Path("thornbed", path)


def test_the_list_of_packages_is_the_folders():
    expected = sorted({".".join(packaged(path).parent.parts) for path in FILES})
    assert SETUPTOOLS["packages"] == expected, set(SETUPTOOLS["packages"]) ^ set(expected)
    code = {path.parent for path in FILES if path.suffix == ".py"}
    assert [str(folder) for folder in code if folder / "__init__.py" not in FILES] == []
    assert SETUPTOOLS["package-dir"] == {"thornbed": "thornbed", **{f"thornbed.{folder}": folder for folder in TOP}}


def test_each_data_file_has_a_pattern_and_each_pattern_a_file():
    data = [path.name for path in FILES if path.suffix != ".py"]
    assert list(SETUPTOOLS["package-data"]) == ["*"]
    [patterns] = SETUPTOOLS["package-data"].values()
    assert [name for name in data if not any(fnmatch.fnmatch(name, pattern) for pattern in patterns)] == []
    assert [pattern for pattern in patterns if not fnmatch.filter(data, pattern)] == []


def test_types_and_circles_are_read_in_every_folder():
    assert PROJECT["tool"]["mypy"]["packages"] == [f"thornbed.{folder}" for folder in TOP]
    assert sorted(runpy.run_path(str(ROOT / "benchmarks" / "folder_circles.py"))["PACKAGES"]) == TOP


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the house with files in it that nobody is to be sent."""
    house = copy_of_the_house(tmp_path_factory.mktemp("checkout") / "house")
    for name in (".venv/stray.py", "data/stray.py", "docs/stray.md", "runs/stray.toml"):
        (house / name).parent.mkdir()
        (house / name).write_text("")
    return house


@pytest.fixture(scope="module")
def wheel(checkout: Path) -> Path:
    """Return the wheel that pip would build from a checkout."""
    code = "from setuptools.build_meta import build_wheel; build_wheel('..')"
    subprocess.run([sys.executable, "-c", code], cwd=checkout, check=True, capture_output=True)
    [built] = checkout.parent.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of packages, as `site-packages` is one: the wheel unpacked, and others beside it."""
    site = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as files:
        files.extractall(site)
    for other in ("pip", "flower_apps"):
        (site / other).mkdir()
        (site / other / "__init__.py").write_text("")
    return site


def alone(*words: str, site: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run Python with `site` before all other packages, without the .pth files through which it finds the checkout."""
    path = os.pathsep.join([str(site), *(each for each in sys.path if each and Path(each).resolve() != ROOT)])
    done = subprocess.run(
        [sys.executable, "-S", *words],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


def test_the_wheel_holds_the_house_and_only_thornbed(wheel):
    with zipfile.ZipFile(wheel) as files:
        names = {Path(name) for name in files.namelist()}
        [about] = {name.parts[0] for name in names if name.parts[0].endswith(".dist-info")}
        metadata = Parser().parsestr(files.read(f"{about}/METADATA").decode())
    within = {name for name in names if name.parts[0] != about}
    assert within == {packaged(path) for path in FILES}, within ^ {packaged(path) for path in FILES}
    assert {name.parts[0] for name in within} == {"thornbed"}
    assert (metadata["Name"], metadata["Version"]) == ("thornbed", PROJECT["project"]["version"])


def test_an_installed_wheel_is_thornbed_and_no_other_package(installed, tmp_path):
    code = (
        "import importlib.util, json, thornbed, thornbed.strategies;"
        "found = {name: bool(importlib.util.find_spec(f'thornbed.{name}')) for name in ('strategies', 'pip')};"
        "print(json.dumps([list(thornbed.__path__), thornbed.strategies.__file__, found]))"
    )
    path, file, found = json.loads(alone("-c", code, site=installed, cwd=tmp_path).stdout)
    assert [Path(each).resolve() for each in path] == [installed / "thornbed"]
    assert Path(file).is_relative_to(installed / "thornbed" / "strategies")
    assert found == {"strategies": True, "pip": False}


def test_an_installed_wheel_lists_what_the_checkout_lists(installed, tmp_path, thornbed):
    words = ("list", "--format", "json")
    listed = json.loads(alone("-m", "thornbed.experiments.cli", *words, site=installed, cwd=tmp_path).stdout)
    assert listed == json.loads(thornbed(*words).out)
    assert {"krum", "sign_flip", "digits"} <= {plugin["name"] for plugin in listed}


def test_an_editable_install_finds_what_is_added_to_the_checkout(house, tmp_path):
    code = "from setuptools.build_meta import build_editable; build_editable('..')"
    subprocess.run([sys.executable, "-c", code], cwd=house, check=True, capture_output=True)
    [built] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(built) as files:
        files.extractall(tmp_path / "site")
    (house / "defenses" / "aggregation" / "newcomer.py").write_text("def newcomer(updates, weights): ...\n")
    (house / "defenses" / "extension").mkdir()
    (house / "defenses" / "extension" / "__init__.py").write_text("")
    code = (
        f"import site; site.addsitedir({str(tmp_path / 'site')!r});"
        "import thornbed.defenses.extension;from thornbed.flower_apps.settings import plugins;"
        "found = plugins.find('strategy', 'newcomer').__module__;"
        "print(plugins.ROOT, plugins.available('strategy')['newcomer'], found)"
    )
    found = alone("-c", code, site=tmp_path / "site", cwd=tmp_path).stdout.split()
    assert found == [str(house), "defenses/aggregation", "thornbed.defenses.aggregation.newcomer"]


# An app of somebody else's, with names that are folders of the house.
APP: Mapping[str, str] = {
    "strategies/__init__.py": "ROUNDS = 2\n",
    "tasks/__init__.py": "WANTED = (1.0, 2.0, 6.0)  # each client's own number\n",
    "protocol.py": """
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict


def answer(request, tensor):
    metrics = MetricRecord({"num-examples": 1, "train-loss": 0.0})
    return Message(RecordDict({"arrays": ArrayRecord({"w": tensor}), "metrics": metrics}), reply_to=request)
""",
    "client_app.py": """
import protocol
import tasks
from flwr.app import Array
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message, context):
    number = tasks.WANTED[context.node_config["partition-id"]]
    return protocol.answer(message, Array(message.content["arrays"]["w"].numpy() * 0 + number))
""",
    "server_app.py": """
import numpy as np
import strategies
from flwr.app import Array, ArrayRecord
from flwr.serverapp import ServerApp
from thornbed.strategies import FedAvg

app = ServerApp()


@app.main()
def main(grid, context):
    first = ArrayRecord({"w": Array(np.zeros(4, np.float32))})
    result = FedAvg().start(grid, first, num_rounds=strategies.ROUNDS)
    print(result.arrays["w"].numpy().tolist())
""",
}


def test_an_app_with_folders_of_the_same_names_aggregates_with_fedavg(installed, tmp_path):
    for name, text in APP.items():
        (tmp_path / "app" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "app" / name).write_text(text, encoding="utf-8")
    code = f"""
import sys
from flwr.app import Context, RecordDict
from flwr.supercore.object_ref import load_app
server, client = (load_app(f"{{each}}_app:app", ValueError, {str(tmp_path / "app")!r}) for each in ("server", "client"))
from thornbed.flower_apps.engines.inline import InlineGrid
server(InlineGrid(client, 3, {{}}), Context(1, 1, {{}}, RecordDict(), {{}}))
print(*(sys.modules[name].__file__ for name in ("strategies", "tasks", "protocol", "thornbed.strategies")), sep="\\n")
"""
    model, *files = alone("-c", code, site=installed, cwd=tmp_path).stdout.splitlines()[-5:]
    assert json.loads(model) == [3.0] * 4
    own = [tmp_path / "app" / name for name in ("strategies/__init__.py", "tasks/__init__.py", "protocol.py")]
    assert [Path(file) for file in files] == [*own, installed / "thornbed" / "strategies" / "__init__.py"]


@pytest.fixture(scope="module")
def bundle(checkout: Path) -> Path:
    """Return what `flwr build` makes of a checkout."""
    folder = checkout.parent
    command = ["flwr", "build", "--app", str(checkout)]
    subprocess.run(command, cwd=folder, env=environment(folder), check=True, capture_output=True)
    [fab] = folder.glob("*.fab")
    return fab


def test_the_bundle_holds_the_house(bundle):
    with zipfile.ZipFile(bundle) as files:
        names = set(files.namelist())
    # Flower takes no templates along: they are for the report, which is made where the results come together.
    expected = {"pyproject.toml", *(path.as_posix() for path in FILES if path.suffix in (".py", ".toml"))}
    assert expected <= names, sorted(expected - names)[:3]
    assert [name for name in names if "stray" in name] == []
    assert bundle.stat().st_size < 3_000_000  # Flower takes 10 MB


def test_the_bundle_runs_before_another_installed_version(bundle, installed, tmp_path):
    """Loaded as Flower loads it, all of it comes from the bundle; none of its plug-ins needs a file from elsewhere."""
    with zipfile.ZipFile(bundle) as files:
        files.extractall(tmp_path / "app")
    code = f"""
import json, sys
from flwr.supercore.object_ref import load_app
for each in ("server", "client"):
    load_app(f"thornbed.{{each}}_app:app", ValueError, {str(tmp_path / "app")!r})
from thornbed.flower_apps.settings import plugins
for kind in plugins.FOLDERS:
    for name in plugins.available(kind):
        plugins.describe(kind, name)
files = {{name: getattr(module, "__file__", None) for name, module in sys.modules.items()}}
print(json.dumps({{name: file or "" for name, file in files.items() if name.split(".")[0] == "thornbed"}}))
"""
    env = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    loaded = {name: Path(file) for name, file in json.loads(done.stdout).items()}
    assert {name: file for name, file in loaded.items() if not file.is_relative_to(tmp_path / "app")} == {}
    assert {"thornbed.defenses.aggregation.krum", "thornbed.server_app", "thornbed.client_app"} <= loaded.keys()


# Two plug-ins, of the server and of a client, that leave what their process has loaded, each module once:
# multiprocessing gives `__main__` a second name. What the attack sends depends on its accomplices' rows.
LOOK = """
import json
import os
import sys
from pathlib import Path


def look(who):
    once = {id(module): name for name, module in reversed(list(sys.modules.items()))}
    files = {name: getattr(sys.modules[name], "__file__", None) for name in once.values()}
    Path(os.environ["SEEN"], f"{who}-{os.getpid()}.json").write_text(json.dumps(files))
"""
RULE = """

def looking_rule(updates, weights):
    look("server")
    return weights @ updates
"""
ATTACK = """
from thornbed.attacks import Knowledge

NEEDS = frozenset({Knowledge.OWN_DATA, Knowledge.SERVER_MODEL, Knowledge.OTHER_ATTACKERS})


def looking_attack(peers, generator):
    look("client")
    return peers.mean(0) - peers.amax(0)
"""
NEW_FILES = {"defenses/aggregation/looking_rule.py": RULE, "attacks/update/looking_attack.py": ATTACK}


@dataclass(frozen=True)
class Process:
    """A process of a run: whose code looked in it, the file of each module that it had loaded, where thornbed lies."""

    who: str
    files: Mapping[str, Path]
    root: Path

    @classmethod
    def read(cls, path: Path) -> Process:
        files = {name: Path(file).resolve() for name, file in json.loads(path.read_text()).items() if file}
        return cls(path.stem.split("-")[0], files, files["thornbed"].parents[1])

    @property
    def is_command_line(self) -> bool:
        return self.files["__main__"].name == "cli.py"


@dataclass(frozen=True)
class LookedInto:
    """A run of a copy of the house with new files in it: its folder, and the processes that it had."""

    folder: Path
    processes: Sequence[Process]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, LookedInto]:
    """Put new files into a copy of the house, beside which another version is installed, and run it in two engines."""
    folder = tmp_path_factory.mktemp("runs")
    house = copy_of_the_house(folder / "house")
    for path, plugin in NEW_FILES.items():
        text = f'"""Look at what is loaded.\n\nSource: this test.\n"""\n{LOOK}{plugin}'
        (house / path).write_text(text, encoding="utf-8")
    words = ["--strategy", "looking_rule", "--attack", "looking_attack", "--num-clients", 4, "--num-malicious", 2]
    words += ["--rounds", 2, "--model", "mlp(hidden=(8,))"]
    found = {}
    for engine in ("inline", "simulation"):
        output, seen = folder / engine, folder / f"seen-{engine}"
        seen.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SEEN", str(seen))
            typed = typed_in(house, "run", *words, "--engine", engine, "--output", output)
        assert typed.code == 0, typed.err
        found[engine] = LookedInto(output, [Process.read(path) for path in seen.glob("*.json")])
    return found


@pytest.mark.slow
def test_new_files_of_a_checkout_run_alike_in_both_engines(runs):
    assert sorted(process.who for process in runs["inline"].processes) == ["client", "server"]
    for run in runs.values():
        assert [line["attack"]["rows"] for line in read_lines(run.folder)[1:]] == [[2.0, 2.0]] * 2
    one, other = ((run.folder / "model.safetensors").read_bytes() for run in runs.values())
    assert one == other


@pytest.mark.slow
def test_flower_runs_the_code_of_the_bundle(runs):
    """All of it, in the server's process and in the clients', though each finds the checkout and an installed one."""
    flowers = [process for process in runs["simulation"].processes if not process.is_command_line]
    assert {process.who for process in flowers} == {"server", "client"}
    for process in flowers:
        assert process.root.parent.name == "apps"  # of Flower's home
        modules = {name: file for name, file in process.files.items() if name.split(".")[0] == "thornbed"}
        assert {name: file for name, file in modules.items() if not file.is_relative_to(process.root)} == {}


@pytest.mark.slow
def test_no_file_is_loaded_under_two_names(runs):
    processes = [process for run in runs.values() for process in run.processes]
    for process in processes:
        names = defaultdict(list)
        for name, file in process.files.items():
            if file.is_relative_to(process.root):
                names[file].append(name)
        assert {file: found for file, found in names.items() if len(found) > 1} == {}
        assert {name.split(".")[0] for found in names.values() for name in found} <= {"thornbed", "__main__"}
        assert process.files.keys() & {*TOP, *NOT_SHIPPED} == set()
