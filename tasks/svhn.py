"""Digits of house numbers in photographs of 32x32 pixels, 73,257 for training and 26,032 for testing.

Source: Y. Netzer, T. Wang, A. Coates, A. Bissacco, B. Wu and A. Y. Ng, "Reading Digits in Natural Images with
Unsupervised Feature Learning", NIPS Workshop on Deep Learning and Unsupervised Feature Learning, 2011; its cropped
digits (Format 2), without the 531,131 easier ones called extra. Read from svhn.npz or from train_32x32.mat and
test_32x32.mat, which SOURCE names; in these label 10 is the digit 0, here label 0 is.

The paper that this task is here for, S. Lee et al., "Cooperative Decentralized Backdoor Attacks on Vertical Federated
Learning", 2025, is vertical: `split_nn` has settings of its own, and the presets vfl_backdoor the rest. The defaults,
for horizontal learning, are no paper's on this task: they are those of cifar10, whose images have the same shape.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from thornbed.tasks import Task, Tuned, cifar10
from thornbed.tasks.sources.images import ImageSource
from thornbed.tasks.sources.torchvision_files import read_svhn

DEFAULTS = replace(cifar10.DEFAULTS, model="resnet18")
# Lee et al., Table II: 560 rows are known, 70 of them of the target.
KNOWN = {"budget": 0.01, "num_known": 560, "known_target_share": 0.125}
TUNED = Tuned(
    settings={"split_nn": {"model": "patch_encoder"}},
    options={
        "cooperative_backdoor": {
            "margin": 0.2, "intensity": 20.0, "confidence": 0.99995, **KNOWN, "latent": 256, "layers": "convolutions",
        },
        "badvfl": KNOWN,
        "villain": KNOWN,
    },
)  # fmt: skip

SOURCE = ImageSource(
    name="svhn",
    image_shape=(3, 32, 32),
    class_names=tuple("0123456789"),
    mean=(0.4377, 0.4438, 0.4728),
    std=(0.1980, 0.2010, 0.1970),
    torchvision_class="SVHN",
    torchvision_splits=("train", "test"),
    published=(
        ("http://ufldl.stanford.edu/housenumbers/train_32x32.mat", "e26dedcc434d2e4c54c9b2d4a06d8373"),
        ("http://ufldl.stanford.edu/housenumbers/test_32x32.mat", "eb5a983be6a315427106f1b164d9cef3"),
    ),
    read_download=read_svhn,
)


def svhn(data_dir: Path | None, *, num_train: int | None = None, num_test: int | None = None) -> Task:
    """Return the task; images have shape (3, 32, 32), ten classes, class k the digit k.

    `num_train` and `num_test` take that many samples, every class in its share, the first ones of each. Raises
    MissingData where `data_dir` does not hold the data and they cannot be downloaded into it, ValueError where
    svhn.npz is malformed or has fewer samples than asked for.
    """
    return SOURCE.task(data_dir, num_train, num_test)
