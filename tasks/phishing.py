"""SYNTHETIC phishing e-mails: 45 made-up reputation scores of a sender, after the description of a private data set.

Paper: X. Wang et al., "Invariant Aggregator for Defending against Federated Backdoor Attacks", AISTATS 2024, Section
6.1 and Appendix C.2 to C.4; the defaults are its Table 3. Its e-mails are not public and nothing here is measured on
any: the samples are drawn to fit the few sentences it says about them. Said there: 45 standardised numerical features;
large scores may indicate phishing; the 38th is 0 on most samples; the value 0.2, its trigger, has a low probability
density there on phishing; plain averaging reaches accuracy 0.999 without an attack. Made up here: everything else, that
is scores in [0, 1] from beta distributions, independent features, classes of equal size, how much each feature tells
and how rare the 38th is. Results on it are about this distribution and no other.

Two readings decide. The trigger is the score 0.2 itself, and the model standardises: of a feature that is rarely above
0 the trigger is then several deviations. And "SGD" of Table 3 has a momentum of 0.9, as the authors' own code for
images has. Without it, or with features that are standardised before the attacker touches them (0.2 of one deviation),
plain averaging hardly learns the backdoor in 20 rounds. The smaller `rare_mean`, the stronger the trigger: five
deviations at 0.2, nineteen at 0.05, where the random weights of the first model already follow it.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch

from thornbed.tasks import Defaults, Samples, Task, Tuned
from thornbed.tasks.sources.subset import take

DEFAULTS = Defaults(
    model="mlp(hidden=(128, 256))",
    optimizer="sgd(momentum=0.9)",
    learning_rate=0.1,
    batch_size=64,
    local_epochs=1.0,
    rounds=20,
    num_clients=100,
    clients_per_round=20,
    malicious_share=0.2,
    partition="dirichlet(alpha=0.5)",
)
# Wang et al., Table 3; the threshold is where normal updates have a sign consistency of tau.
TUNED = Tuned(
    options={"invariant": {"tau": 0.6}, "and_mask": {"tau": 0.6}, "mean_variance_ratio": {"threshold": 0.708}}
)

SEED = 38
NUM_TRAIN, NUM_TEST = 50_000, 4_000
NUM_FEATURES = 45
RARE = 37
"""Index of the 38th feature."""
RARE_SHARE = 0.02
HARMLESS_MEAN, LARGEST_GAP, CONCENTRATION = 0.3, 0.3, 6.0


def phishing(
    data_dir: Path | None, *, rare_mean: float = 0.2, num_train: int | None = None, num_test: int | None = None
) -> Task:
    """Return the task: 50,000 training and 4,000 test samples of 45 float32 scores in [0, 1]; label 1 is phishing.

    Half of each are phishing. Score j is Beta(6 m, 6 (1 - m)) with mean m = 0.3, on phishing 0.3 + gap_j, the gaps
    drawn once, uniform in [0, 0.3]. Score 37 is exactly 0 on 98 of 100 samples of either class and else exponential
    with mean `rare_mean` in (0, 1], cut at 1. Drawn by NumPy's RandomState(38), whose stream never changes: the run's
    seed has no say. `mean` and `std` of the task are those of all 50,000 training samples. `data_dir` is not used.
    `num_train` and `num_test` take that many samples, every class in its share, the first ones of each; ValueError
    where there are not that many.
    """
    if not (math.isfinite(rare_mean) and 0 < rare_mean <= 1):
        raise ValueError(f"phishing needs 0 < rare_mean <= 1: rare_mean = {rare_mean}")
    random = np.random.RandomState(SEED)
    gaps = random.uniform(0, LARGEST_GAP, NUM_FEATURES)
    train, test = (_drawn(random, gaps, rare_mean, count) for count in (NUM_TRAIN, NUM_TEST))
    deviation, mean = torch.std_mean(train.x.double(), dim=0)
    return Task(
        name="phishing",
        modality="table",
        num_classes=2,
        train=take(train, num_train, task="phishing", option="num_train"),
        test=take(test, num_test, task="phishing", option="num_test"),
        mean=tuple(mean.tolist()),
        std=tuple(deviation.tolist()),
        class_names=("not phishing", "phishing"),
    )


def _drawn(random: np.random.RandomState, gaps: np.ndarray, rare_mean: float, count: int) -> Samples:
    """Return `count` samples, the classes in random order; `gaps` is (45,)."""
    labels = random.permutation(np.arange(count) % 2)
    means = HARMLESS_MEAN + gaps * labels[:, None]
    scores = random.beta(CONCENTRATION * means, CONCENTRATION * (1 - means))
    rare = random.exponential(rare_mean, count).clip(0, 1)
    scores[:, RARE] = np.where(random.uniform(size=count) < RARE_SHARE, rare, 0.0)
    return Samples(torch.from_numpy(scores.astype(np.float32)), torch.from_numpy(labels))
