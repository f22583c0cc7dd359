"""How many mutants of the pure code do the nearest tests kill?  Peer: none; mutmut makes and runs the mutants.

    python benchmarks/mutation.py defenses/aggregation --work /tmp/mutants     # needs the extra `mutation`

mutmut wants an installed layout, in which `thornbed/` holds the folders. The script copies the checkout into that
layout below `--work`, runs mutmut there on the folders that are named, and prints killed, survived and not-run mutants
of each folder. A second run of the same command goes on where the first one stopped, and runs again what has changed.
The text of refusals is not mutated: a test of a sentence's every letter would hold nothing together.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("attacks", "clients", "defenses", "experiments", "flower_apps", "protocol", "strategies", "tasks")


def contracts(*kinds: str) -> list[str]:
    """Return the contract suites of `kinds`, which are patterns of their names."""
    found = {path for kind in kinds for path in (ROOT / "tests" / "contracts").glob(f"test_{kind}_contract.py")}
    return sorted(str(path.relative_to(ROOT)) for path in found)


# The tests that stand nearest to each folder: those of its own and the contract suites over its plug-ins.
NEAREST = {
    "attacks": ["tests/attacks", *contracts("*_attack", "inversion")],
    "defenses": [
        "tests/defenses",
        *contracts("aggregation", "hardening", "*_defense", "perturbation", "purification", "relations", "trimming"),
        *contracts("memory"),
    ],
    "protocol": ["tests/protocol", "tests/strategies", "tests/clients"],
    "tasks/mocha": ["tests/tasks/mocha", "tests/attacks/multitask", "tests/contracts/test_relations_contract.py"],
    "tasks/split": ["tests/tasks/split", "tests/contracts/test_bottom_contract.py"],
}
REFUSALS = ["raise ", 'f"']


def nearest(folder: str) -> list[str]:
    """Return the tests of `folder`: those of the longest entry of `NEAREST` that holds it."""
    held = [entry for entry in NEAREST if folder == entry or folder.startswith(entry + "/")]
    if not held:
        raise SystemExit(f"{folder} has no nearest tests; these have: {', '.join(NEAREST)}")
    return NEAREST[max(held, key=len)]


def lay_out(work: Path, folders: list[str], tests: list[str]) -> None:
    """Copy the checkout into the installed layout at `work`, with the settings of mutmut."""
    for name in ("thornbed", "tests"):
        shutil.rmtree(work / name, ignore_errors=True)
    plain = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "thornbed", work / "thornbed", ignore=plain)
    shutil.copytree(ROOT / "tests", work / "tests", ignore=plain)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, work / "thornbed" / name, ignore=plain)
    settings = {
        "source_paths": ["thornbed"],
        "only_mutate": [f"thornbed/{folder}/*" for folder in folders],
        "do_not_mutate_patterns": REFUSALS,
        "pytest_add_cli_args_test_selection": tests,
        "pytest_add_cli_args": ["-p", "no:cacheprovider", "-p", "no:xdist", "-x"],
        "process_isolation": "forkserver",  # torch's threads do not outlive a fork
        "track_dependencies": False,
        "use_git_change_detection": False,
        "timeout_constant": 30.0,
    }
    lines = "\n".join(f"{key} = {json.dumps(value)}" for key, value in settings.items())
    own = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    pytest_table = own[own.index("[tool.pytest.ini_options]") :]
    (work / "pyproject.toml").write_text(f"[tool.mutmut]\n{lines}\n\n{pytest_table}", encoding="utf-8")


def counts(work: Path) -> dict[str, Counter[str]]:
    """Return how many mutants of each folder ended how, read from what mutmut wrote below `work`."""
    ends = {0: "survived", 5: "no tests", 33: "no tests", None: "not run"}
    table: dict[str, Counter[str]] = {}
    for path in sorted((work / "mutants" / "thornbed").rglob("*.meta")):
        folder = str(path.parent.relative_to(work / "mutants" / "thornbed"))
        for code in json.loads(path.read_text(encoding="utf-8"))["exit_code_by_key"].values():
            table.setdefault(folder, Counter())[ends.get(code, "killed")] += 1  # also by a crash, and by never ending
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", help="what is mutated, e.g. defenses/aggregation")
    parser.add_argument("--work", type=Path, required=True, help="a folder for the copy and the results")
    parser.add_argument("--tests", nargs="*", help="tests to run instead of the nearest ones")
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    tests = given.tests or sorted({test for folder in given.folders for test in nearest(folder)})
    given.work.mkdir(parents=True, exist_ok=True)
    lay_out(given.work, given.folders, tests)
    one_thread = {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", "PYTHONPATH": ""}
    done = subprocess.run(
        [sys.executable, "-m", "mutmut", "run", "--max-children", str(given.jobs)],
        cwd=given.work,
        env=os.environ | one_thread,
    )
    for folder, ended in counts(given.work).items():
        caught = ended["killed"] / max(1, sum(ended.values()))
        print(f"{folder:32s} {caught:6.1%} killed  {dict(ended)}")
    raise SystemExit(done.returncode)


if __name__ == "__main__":
    main()
