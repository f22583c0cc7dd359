"""Colour photographs of 32x32 pixels in ten classes, 50,000 for training and 10,000 for testing.

Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", technical report, University of
Toronto, 2009. Read from cifar10.npz or from torchvision's folder cifar-10-batches-py, which is filled with the archive
that SOURCE names.

The defaults are those of X. Wang et al., "Invariant Aggregator for Defending against Federated Backdoor Attacks",
AISTATS 2024, Table 3 and Appendix C.2. Table 3 says "SGD"; the momentum is that of the authors' own code, which also
leaves batch norm out of the network: `resnet18(norm='none')`. Appendix D.2 counts 11,689,512 gradient elements, as many
as torchvision's resnet18 has parameters as it comes: with batch norm, a stem that divides images by four and 1,000
outputs. Ours has 11.2 million.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from thornbed.tasks import Defaults, Task, Tuned
from thornbed.tasks.sources.images import ImageSource
from thornbed.tasks.sources.torchvision_files import read_cifar

DEFAULTS = Defaults(
    model="resnet18(norm='none')",  # as the code of the authors of Wang et al. has it: docs/papers/invariant.md
    optimizer="sgd(momentum=0.9)",
    learning_rate=0.01,
    batch_size=64,
    local_epochs=1.0,
    rounds=300,
    num_clients=100,
    clients_per_round=20,
    malicious_share=0.2,
    partition="dirichlet(alpha=0.5)",
)

# Wang et al., Table 3, the threshold where normal updates have a sign consistency of tau; Lee et al., Table II: 350
# rows are known, 49 of them of the target.
KNOWN = {"budget": 0.01, "num_known": 350, "known_target_share": 0.14}
TUNED = Tuned(
    settings={"split_nn": {"model": "patch_encoder"}},
    options={
        "invariant": {"tau": 0.2},
        "and_mask": {"tau": 0.2},
        "mean_variance_ratio": {"threshold": 0.064},
        "cooperative_backdoor": {
            "margin": 0.2, "intensity": 30.0, "confidence": 0.9985, **KNOWN, "latent": 512, "layers": "convolutions",
        },
        "badvfl": KNOWN,
        "villain": KNOWN,
    },
)  # fmt: skip

SOURCE = ImageSource(
    name="cifar10",
    image_shape=(3, 32, 32),
    class_names=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2470, 0.2435, 0.2616),
    torchvision_class="CIFAR10",
    published=(("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a"),),
    read_download=partial(read_cifar, "CIFAR10"),
)


def cifar10(data_dir: Path | None, *, num_train: int | None = None, num_test: int | None = None) -> Task:
    """Return the task; images have shape (3, 32, 32), ten classes.

    `num_train` and `num_test` take that many samples, every class in its share, the first ones of each. Raises
    MissingData where `data_dir` does not hold the data and they cannot be downloaded into it, ValueError where
    cifar10.npz is malformed or has fewer samples than asked for.
    """
    return SOURCE.task(data_dir, num_train, num_test)
