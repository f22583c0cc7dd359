"""How much of the house does a run walk through: files executed, specs parsed, plug-ins built?

    python benchmarks/run_footprint.py

Each run is made in a process of its own, inline, under `sys.setprofile`. A file counts where a function of it was
called; what a module does when it is imported does not count. A spec counts where its text is parsed, a plug-in where
`plugins.load` makes it.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

RUNS = {
    "horizontal": "--num-clients 6 --clients-per-round 6 --strategy krum --attack pixel_trigger --rounds 1",
    "multitask": "--task digit_nodes --strategy mocha --attack random_direct --rounds 1",
    "vertical": "--num-clients 4 --strategy split_nn --attack cooperative_backdoor(size=(2,2),num_known=60,epochs=1) "
    "--rounds 1",
    "inference": "--num-clients 4 --local-epochs 1 --strategy collaborative_inference --attack feature_flip "
    "--defense copur --rounds 3",
}
HOUSE = ("attacks", "clients", "defenses", "experiments", "flower_apps", "protocol", "strategies", "tasks")


def main() -> None:
    """Print a table with a row for each run."""
    if len(sys.argv) > 1:
        print(*footprint(sys.argv[1].split()))
        return
    print(f"{'run':<12}{'files':>8}{'specs parsed':>14}{'most often':>12}{'plug-ins built':>16}{'most often':>12}")
    for name, words in RUNS.items():
        command = [sys.executable, __file__, words]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        files, parsed, again, built, most = done.stdout.strip().splitlines()[-1].split()
        print(f"{name:<12}{files:>8}{parsed:>14}{again:>12}{built:>16}{most:>12}")


def footprint(words: list[str]) -> tuple[int, int, int, int, int]:
    """Return files executed, specs parsed, how often one of them, plug-ins built, how often one of them."""
    try:
        cli = importlib.import_module("thornbed.experiments.cli")
        plugins: Any = importlib.import_module("thornbed.flower_apps.settings.plugins")
    except ImportError:  # before the package had a name of its own
        cli = importlib.import_module("flower_apps.cli")
        plugins = importlib.import_module("flower_apps.plugins")
    root = Path(plugins.ROOT)
    files, parsed, built = set[str](), Counter[str](), Counter[str]()
    plain = ast.parse

    def parse(source: Any, *args: Any, **options: Any) -> Any:
        if options.get("mode") == "eval" and sys._getframe(1).f_code.co_filename == plugins.__file__:
            parsed[str(source)] += 1
        return plain(source, *args, **options)

    def watch(frame: FrameType, event: str, argument: object) -> None:
        if event == "call":
            code = frame.f_code
            if code.co_flags & inspect.CO_OPTIMIZED and not code.co_name.startswith(
                "<"
            ):  # no module, no body of a class
                files.add(code.co_filename)
            if code.co_name == "load" and code.co_filename == plugins.__file__:
                built[f"{frame.f_locals['kind']} {frame.f_locals['text']}"] += 1

    with tempfile.TemporaryDirectory() as folder:
        sys.argv = ["thornbed", "run", *words, "--output", f"{folder}/run"]
        ast.parse = parse
        sys.setprofile(watch)
        try:
            cli.main()
        except SystemExit as left:
            if left.code:
                raise
        finally:
            sys.setprofile(None)
            ast.parse = plain
    house = {
        file for file in files if Path(file).is_relative_to(root) and Path(file).relative_to(root).parts[0] in HOUSE
    }
    return len(house), sum(parsed.values()), max(parsed.values()), sum(built.values()), max(built.values())


if __name__ == "__main__":
    main()
