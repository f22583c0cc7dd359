"""Handwritten digits of 28x28 pixels, 60,000 for training and 10,000 for testing.

Source: Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, "Gradient-Based Learning Applied to Document Recognition",
Proceedings of the IEEE, 1998. Read from mnist.npz or from torchvision's folder MNIST/raw, which is filled with the
files that SOURCE names.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from thornbed.tasks import Defaults, Task, Tuned
from thornbed.tasks.sources.images import ImageSource
from thornbed.tasks.sources.torchvision_files import read_idx_archives

DEFAULTS = Defaults(model="cnn")
# Lee et al., Table II: 360 rows are known, 58 of them of the target.
KNOWN = {"budget": 0.01, "num_known": 360, "known_target_share": 0.16}
TUNED = Tuned(
    options={
        "cooperative_backdoor": {
            "margin": 0.4, "intensity": 20.0, "confidence": 0.999, **KNOWN, "latent": 32, "layers": "linear",
        },
        "badvfl": KNOWN,
        "villain": KNOWN,
    }
)  # fmt: skip

MIRROR = "https://ossci-datasets.s3.amazonaws.com/mnist/"
SOURCE = ImageSource(
    name="mnist",
    image_shape=(1, 28, 28),
    class_names=tuple("0123456789"),
    mean=(0.1307,),
    std=(0.3081,),
    torchvision_class="MNIST",
    published=(
        (f"{MIRROR}train-images-idx3-ubyte.gz", "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
        (f"{MIRROR}train-labels-idx1-ubyte.gz", "d53e105ee54ea40749a09fcbcd1e9432"),
        (f"{MIRROR}t10k-images-idx3-ubyte.gz", "9fb629c4189551a2d022fa330f9573f3"),
        (f"{MIRROR}t10k-labels-idx1-ubyte.gz", "ec29112dd5afa0611ce80d1b7f02629c"),
    ),
    read_download=partial(read_idx_archives, "MNIST"),
)


def mnist(data_dir: Path | None, *, num_train: int | None = None, num_test: int | None = None) -> Task:
    """Return the task; images have shape (1, 28, 28), ten classes.

    `num_train` and `num_test` take that many samples, every class in its share, the first ones of each. Raises
    MissingData where `data_dir` does not hold the data and they cannot be downloaded into it, ValueError where
    mnist.npz is malformed or has fewer samples than asked for.
    """
    return SOURCE.task(data_dir, num_train, num_test)
