"""The house rules that a program can check: one-way imports, no drawers, no short files that are long."""

import ast
import runpy
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHAPE = SimpleNamespace(**runpy.run_path(str(ROOT / "benchmarks" / "folder_circles.py")))
PACKAGES = SHAPE.PACKAGES
# Who may import whom; Flower is a package here too, so that algorithms stay usable on bare tensors.
ALLOWED = {
    "tasks": set(),
    "attacks": {"tasks"},
    "defenses": set(),
    "protocol": {"flwr"},
    "clients": {"attacks", "defenses", "tasks", "protocol"},
    "strategies": {"attacks", "defenses", "tasks", "protocol", "flwr"},
    "flower_apps": {"attacks", "defenses", "tasks", "protocol", "clients", "strategies", "flwr"},
    "experiments": {*PACKAGES, "flwr"},
}
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Return the packages of the house that a file imports, and flwr; the others it imports by full names alone."""
    modules = list(SHAPE.imported(path))
    assert not any(module.split(".")[0] in PACKAGES for module in modules), f"{path}: the house is imported as thornbed"
    inside = {module.split(".")[1] for module in modules if module.split(".")[0] == "thornbed"}
    return inside | ({"flwr"} & {module.split(".")[0] for module in modules})


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way(path):
    package = path.relative_to(ROOT).parts[0]
    wrong = (imported(path) & {*PACKAGES, "flwr"}) - ALLOWED[package] - {package}
    assert not wrong, f"{package} imports {sorted(wrong)}"


def test_no_folders_import_each_other_in_a_circle():
    assert SHAPE.circles(SHAPE.folders()) == []


# Files that are longer, and would be harder to read in two.
ONE_THOUGHT = {
    "flower_apps/records/folder.py": 350,  # what is written has what reads it beside it
    "experiments/cli.py": 350,  # every command, and the flags of the first
}


def test_a_circle_of_folders_would_be_seen(tmp_path):
    for folder in SHAPE.PACKAGES:
        (tmp_path / folder / "inner").mkdir(parents=True)
    (tmp_path / "tasks" / "one.py").write_text("from thornbed.tasks.inner.two import x\n")
    (tmp_path / "tasks" / "inner" / "two.py").write_text("def x():\n    from thornbed.tasks import one\n")
    assert SHAPE.circles(SHAPE.folders(tmp_path)) == [["tasks", "tasks/inner"]]


def test_no_two_classes_share_a_name():
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in FILES]
    names = Counter(node.name for tree in trees for node in tree.body if isinstance(node, ast.ClassDef))
    assert [name for name, count in names.items() if count > 1] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_are_short_and_named(path):
    assert not {part.removesuffix(".py") for part in path.parts} & {
        "utils",
        "util",
        "helpers",
        "helper",
        "common",
        "misc",
    }
    most = ONE_THOUGHT.get(str(path.relative_to(ROOT)), 300)
    assert len(path.read_text(encoding="utf-8").splitlines()) <= most


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_seeds_globally_or_unpickles(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            call = ast.unparse(node.func)
            assert call not in {
                "np.random.seed",
                "numpy.random.seed",
                "random.seed",
                "pickle.load",
                "pickle.loads",
                "eval",
            }
            assert call != "torch.load"
            allow_pickle = [k.value for k in node.keywords if k.arg == "allow_pickle"]
            assert not any(getattr(value, "value", True) for value in allow_pickle)


def test_manual_seed_only_inside_a_fork():
    """The default generator is global: it is seeded only below `with torch.random.fork_rng(...)`, which undoes it.

    torch.manual_seed stands nowhere: it seeds every GPU too, also those that the fork does not give back.
    """

    def walk(node, forked):
        if isinstance(node, ast.With):
            forked = forked or any("fork_rng" in ast.unparse(item.context_expr) for item in node.items)
        call = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
        assert call != "torch.manual_seed"
        assert forked or call != "torch.default_generator.manual_seed"
        for child in ast.iter_child_nodes(node):
            walk(child, forked)

    for path in FILES:
        walk(ast.parse(path.read_text(encoding="utf-8")), False)
