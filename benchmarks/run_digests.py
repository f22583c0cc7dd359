"""Does a change keep the bytes of runs? About forty small runs, a digest of the model and of the figures of each.

    python benchmarks/run_digests.py FOLDER [NAME ...] > before.txt      # on the code before the change
    python benchmarks/run_digests.py OTHER > after.txt && diff before.txt after.txt

A digest is the SHA-256 of the final model's file and of every line of metrics.jsonl without times and addresses of
nodes. Digests compare two states of the code on one machine: other processors and other versions of torch give other
last bits.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

HORIZONTAL = (
    "--task digits --num-clients 8 --clients-per-round 6 --rounds 3 --num-malicious 3 --partition dirichlet(alpha=0.5)"
)
CLEAN = HORIZONTAL.replace(" --num-malicious 3", "")
MULTITASK = "--task digit_nodes --rounds 6"
VERTICAL = "--task digits --num-clients 4 --rounds 2"
TRIGGER = "size=(2,2),num_known=60,epochs=5"
INFERENCE = "--task digits --num-clients 4 --local-epochs 5"

# By name: the words of one command, or of several that go on from each other in one folder.
RUNS: dict[str, tuple[str, ...]] = {
    "clean": (f"{CLEAN} --strategy fedavg",),
    "trigger": (f"{HORIZONTAL} --strategy fedavg --attack pixel_trigger",),
    "invariant": (f"{HORIZONTAL} --strategy invariant(tau=0.2) --attack pixel_trigger+scaling(factor=5.0)",),
    "invariant_class": (f"{HORIZONTAL} --strategy invariant_aggregation(tau=0.2) --attack pixel_trigger",),
    "krum": (f"{HORIZONTAL} --strategy krum(num_byzantine=1) --attack label_flip",),
    "trimmed_mean": (f"{HORIZONTAL} --strategy trimmed_mean(alpha=0.3) --attack gaussian(std=1.0)",),
    "median": (f"{HORIZONTAL} --strategy median --attack sign_flip(factor=3.0)",),
    "weak_dp": (f"{HORIZONTAL} --strategy weak_dp(norm=1.0) --attack dba(size=2,gap=1,num_parts=2)",),
    "sparse_fed": (f"{HORIZONTAL} --strategy sparse_fed --attack pixel_trigger+constrain_and_scale",),
    "fltrust": (f"{HORIZONTAL} --strategy fltrust --attack pixel_trigger+adaptive",),
    "foolsgold": (f"{HORIZONTAL} --strategy foolsgold --attack mimic",),
    "flame": (f"{HORIZONTAL} --strategy flame --attack pixel_trigger+collude",),
    "rfa_adaptive": (f"{HORIZONTAL} --strategy rfa --attack adaptive",),
    "client_defenses": (f"{HORIZONTAL} --defense local_dp+top_k --attack pixel_trigger",),
    "flip": (f"{HORIZONTAL} --rounds 2 --defense flip(inversion_steps=5) --attack pixel_trigger",),
    "attack_rounds": (f"{HORIZONTAL} --attack pixel_trigger --attack-share 0.5 --malicious-per-round 2",),
    "continued_epochs": (f"{CLEAN} --continue-epochs --local-epochs 0.5 --optimizer adam --learning-rate 0.01",),
    "batch_norm": (f"{CLEAN} --model cnn(norm='batch',width=8) --strategy sign_sgd",),
    "batch_norm_fedavg": (f"{CLEAN} --model cnn(norm='batch',width=8)",),
    "phishing": (f"{HORIZONTAL.replace('digits', 'phishing')} --attack value_trigger --strategy rlr",),
    "photos": (f"{CLEAN.replace('digits', 'photos')} --rounds 1 --local-epochs 0.1",),
    "curious": (
        f"{CLEAN} --rounds 1 --local-epochs 0.1 --curious agic(steps=5,labels='counts') --curious-clients all",
    ),
    "record": (
        f"{CLEAN} --rounds 1 --record FOLDER/kept",
        "invert FOLDER/kept --with dlg_adam(steps=3,labels='counts',local_steps='one_batch')",
    ),
    "resumed": (f"{HORIZONTAL} --strategy sparse_fed --attack pixel_trigger", "RESUME --rounds 5"),
    "resumed_adaptive": (f"{HORIZONTAL} --attack adaptive", "RESUME --rounds 5"),
    "simulation": (f"{HORIZONTAL} --engine simulation --strategy krum --attack pixel_trigger+adaptive",),
    "mocha": (f"{MULTITASK} --strategy mocha",),
    "mocha_at2fl": (f"{MULTITASK} --strategy mocha --attack at2fl(iterations=3,balls=2)",),
    "mocha_learnt": (f"{MULTITASK} --strategy mocha(learn_omega=2,stragglers=0.3) --defense rank_relations",),
    "mocha_trimmed": (f"{MULTITASK} --strategy mocha --attack random_hybrid --defense loss_trimming",),
    "mocha_drawn": (f"{MULTITASK} --strategy mocha --clients-per-round 4",),
    "mocha_resumed": (f"{MULTITASK} --strategy mocha(learn_omega=2)", "RESUME --rounds 9"),
    "mocha_simulation": (f"{MULTITASK} --engine simulation --strategy mocha --attack at2fl(iterations=3,balls=2)",),
    "split_nn": (f"{VERTICAL} --strategy split_nn",),
    "split_nn_cooperative": (f"{VERTICAL} --strategy split_nn --attack cooperative_backdoor({TRIGGER})",),
    "split_nn_villain": (f"{VERTICAL} --rounds 5 --strategy split_nn --attack villain(num_known=60)",),
    "split_nn_badvfl": (
        f"{VERTICAL} --rounds 3 --strategy split_nn --attack badvfl(num_known=60,size=(2,2)) --defense gradient_noise",
    ),
    "split_nn_local": (f"{VERTICAL} --strategy split_nn(local_steps=2) --defense block_dropout",),
    "split_nn_resumed": (
        f"{VERTICAL} --strategy split_nn --attack cooperative_backdoor({TRIGGER})",
        "RESUME --rounds 3",
    ),
    "split_nn_simulation": (
        f"{VERTICAL} --rounds 1 --batch-size 1024 --engine simulation --strategy split_nn "
        f"--attack cooperative_backdoor({TRIGGER})",
    ),
    "inference": (f"{INFERENCE} --strategy collaborative_inference --attack feature_flip --defense copur",),
    "inference_ablation": (
        f"{INFERENCE} --strategy collaborative_inference --attack targeted_pgd(steps=3) "
        "--defense randomized_ablation(keep=2,trials=20)",
    ),
    "inference_resumed": (
        f"{INFERENCE} --strategy collaborative_inference --attack missing --rounds 3",
        "RESUME --rounds 4",
    ),
    "inference_simulation": (
        f"{INFERENCE} --engine simulation --strategy collaborative_inference --attack feature_flip",
    ),
    "sweep": ("sweep FOLDER/sweep.toml --output FOLDER/run",),
}
SWEEP = """
task = "digits"
num-clients = 6
clients-per-round = 4
rounds = 2
strategy = ["fedavg", "median"]
attack = ["pixel_trigger", "sign_flip"]
"""


def main() -> None:
    """Make the runs that are named, or all, and print a line for each."""
    folder, names = Path(sys.argv[1]).absolute(), sys.argv[2:] or list(RUNS)
    for name in names:
        here = folder / name
        here.mkdir(parents=True, exist_ok=True)
        (here / "sweep.toml").write_text(SWEEP, encoding="utf-8")
        codes = [typed(words) for words in commands(name, here)]
        print(name, *codes, *digests(here), flush=True)


def commands(name: str, here: Path) -> Iterator[list[str]]:
    """Yield the words of the commands of a run."""
    for text in RUNS[name]:
        words = text.replace("FOLDER", str(here)).split()
        if words[0] == "RESUME":
            words = ["run", "--resume", "--output", str(here / "run"), *words[1:]]
            words = [*given(next(commands(name, here)), words), *words]
        elif words[0].startswith("--"):
            words = ["run", *words, "--output", str(here / "run")]
        yield words


def given(first: list[str], words: list[str]) -> list[str]:
    """Return the words of a first command that a second one has to say again: all but what it says itself."""
    pairs = [first[place : place + 2] for place in range(1, len(first), 2)]
    said = [words[0], *(word for pair in pairs if pair[0] not in words for word in pair)]
    words.pop(0)
    return said


def typed(words: list[str]) -> int:
    """Run the command line in this process and return its exit code."""
    try:
        cli = importlib.import_module("thornbed.experiments.cli")
    except ImportError:
        cli = importlib.import_module("flower_apps.cli")  # before the package had a name of its own
    sys.argv = ["thornbed", *words]
    kept, sys.stdout = sys.stdout, sys.stderr
    try:
        cli.main()
    except SystemExit as left:
        return int(left.code or 0)
    finally:
        sys.stdout = kept
    return 0


def digests(here: Path) -> list[str]:
    """Return a short digest of every model and of every metrics.jsonl in a folder, in the order of their paths."""
    found = []
    for path in sorted(here.rglob("*")):
        if path.suffix == ".safetensors" and path.stem in ("model", "inversions"):
            content = _tensors(path)  # and not what a file says beside them, such as a digest of its own
        elif path.name == "model.npz":
            content = path.read_bytes()
        elif path.name == "metrics.jsonl":
            lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            content = json.dumps([_lasting(line) for line in lines], sort_keys=True).encode()
        else:
            continue
        found.append(f"{path.name.split('.')[0]}={hashlib.sha256(content).hexdigest()[:12]}")
    return found


def _tensors(path: Path) -> bytes:
    """Return the header's part of each tensor, by name, and the bytes of all, in the order of the names."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    header.pop("__metadata__", None)
    parts = [json.dumps([name, told["dtype"], told["shape"]]).encode() for name, told in sorted(header.items())]
    return b"".join(parts + [data[slice(*told["data_offsets"])] for _, told in sorted(header.items())])


def _lasting(line: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in line.items() if not name.startswith("seconds") and name != "replaced"}


if __name__ == "__main__":
    main()
