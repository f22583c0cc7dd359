"""Articles of clothing in 28x28 pixels, 60,000 for training and 10,000 for testing.

Source: H. Xiao, K. Rasul and R. Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning
Algorithms", arXiv:1708.07747, 2017. Read from fashion_mnist.npz or from torchvision's folder FashionMNIST/raw, which
is filled with the files that SOURCE names.
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
            "margin": 0.25, "intensity": 30.0, "confidence": 0.999, **KNOWN, "latent": 64, "layers": "linear",
        },
        "badvfl": KNOWN,
        "villain": KNOWN,
    }
)  # fmt: skip

MIRROR = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
SOURCE = ImageSource(
    name="fashion_mnist",
    image_shape=(1, 28, 28),
    class_names=(
        "T-shirt/top",
        "trouser",
        "pullover",
        "dress",
        "coat",
        "sandal",
        "shirt",
        "sneaker",
        "bag",
        "ankle boot",
    ),
    mean=(0.2860,),
    std=(0.3530,),
    torchvision_class="FashionMNIST",
    published=(
        (f"{MIRROR}train-images-idx3-ubyte.gz", "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
        (f"{MIRROR}train-labels-idx1-ubyte.gz", "25c81989df183df01b3e8a0aad5dffbe"),
        (f"{MIRROR}t10k-images-idx3-ubyte.gz", "bef4ecab320f06d8554ea6380940ec79"),
        (f"{MIRROR}t10k-labels-idx1-ubyte.gz", "bb300cfdad3c16e7a12a480ee83cd310"),
    ),
    read_download=partial(read_idx_archives, "FashionMNIST"),
)


def fashion_mnist(data_dir: Path | None, *, num_train: int | None = None, num_test: int | None = None) -> Task:
    """Return the task; images have shape (1, 28, 28), ten classes.

    `num_train` and `num_test` take that many samples, every class in its share, the first ones of each. Raises
    MissingData where `data_dir` does not hold the data and they cannot be downloaded into it, ValueError where
    fashion_mnist.npz is malformed or has fewer samples than asked for.
    """
    return SOURCE.task(data_dir, num_train, num_test)
