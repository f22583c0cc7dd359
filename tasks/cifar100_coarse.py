"""Colour photographs of 32x32 pixels in the 20 superclasses of CIFAR-100, 50,000 for training and 10,000 for testing.

Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", technical report, University of
Toronto, 2009; SUPERCLASSES is the table of https://www.cs.toronto.edu/~kriz/cifar.html. Read from cifar100_coarse.npz,
whose labels are the superclasses themselves, or from torchvision's folder cifar-100-python, which is filled with the
archive that SOURCE names.

The paper that this task is here for, S. Lee et al., "Cooperative Decentralized Backdoor Attacks on Vertical Federated
Learning", 2025, is vertical: `split_nn` has settings of its own, and the presets vfl_backdoor the rest. The defaults,
for horizontal learning, are no paper's on this task: they are those of cifar10, whose images have the same shape.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from thornbed.tasks import Samples, Task, Tuned, cifar10
from thornbed.tasks.sources.images import ImageSource
from thornbed.tasks.sources.torchvision_files import read_cifar

DEFAULTS = replace(cifar10.DEFAULTS, model="resnet18")
# Lee et al., Table II: 487 rows are known, 75 of them of the target.
KNOWN = {"budget": 0.005, "num_known": 487, "known_target_share": 0.154}
TUNED = Tuned(
    settings={"split_nn": {"model": "patch_encoder"}},
    options={
        "cooperative_backdoor": {
            "margin": 0.2, "intensity": 95.0, "confidence": 0.99999, **KNOWN, "latent": 512,
            "layers": "convolutions",
        },
        "badvfl": KNOWN,
        "villain": KNOWN,
    },
)  # fmt: skip

# In the order of their labels, with the fine classes of each. Fine labels follow the alphabet, so need no second table.
SUPERCLASSES = {
    "aquatic_mammals": ("beaver", "dolphin", "otter", "seal", "whale"),
    "fish": ("aquarium_fish", "flatfish", "ray", "shark", "trout"),
    "flowers": ("orchid", "poppy", "rose", "sunflower", "tulip"),
    "food_containers": ("bottle", "bowl", "can", "cup", "plate"),
    "fruit_and_vegetables": ("apple", "mushroom", "orange", "pear", "sweet_pepper"),
    "household_electrical_devices": ("clock", "keyboard", "lamp", "telephone", "television"),
    "household_furniture": ("bed", "chair", "couch", "table", "wardrobe"),
    "insects": ("bee", "beetle", "butterfly", "caterpillar", "cockroach"),
    "large_carnivores": ("bear", "leopard", "lion", "tiger", "wolf"),
    "large_man-made_outdoor_things": ("bridge", "castle", "house", "road", "skyscraper"),
    "large_natural_outdoor_scenes": ("cloud", "forest", "mountain", "plain", "sea"),
    "large_omnivores_and_herbivores": ("camel", "cattle", "chimpanzee", "elephant", "kangaroo"),
    "medium_mammals": ("fox", "porcupine", "possum", "raccoon", "skunk"),
    "non-insect_invertebrates": ("crab", "lobster", "snail", "spider", "worm"),
    "people": ("baby", "boy", "girl", "man", "woman"),
    "reptiles": ("crocodile", "dinosaur", "lizard", "snake", "turtle"),
    "small_mammals": ("hamster", "mouse", "rabbit", "shrew", "squirrel"),
    "trees": ("maple_tree", "oak_tree", "palm_tree", "pine_tree", "willow_tree"),
    "vehicles_1": ("bicycle", "bus", "motorcycle", "pickup_truck", "train"),
    "vehicles_2": ("lawn_mower", "rocket", "streetcar", "tank", "tractor"),
}
COARSE_OF_FINE = tuple(
    coarse for _, coarse in sorted((name, label) for label, names in enumerate(SUPERCLASSES.values()) for name in names)
)
"""The label of the superclass of each of the 100 fine labels."""


def _read_download(data_dir: Path) -> tuple[Samples, Samples]:
    """Read CIFAR-100, of which torchvision gives the fine labels alone, and replace them by those of superclasses."""
    table = torch.tensor(COARSE_OF_FINE)
    train, test = (replace(samples, y=table[samples.y]) for samples in read_cifar("CIFAR100", data_dir))
    return train, test


SOURCE = ImageSource(
    name="cifar100_coarse",
    image_shape=(3, 32, 32),
    class_names=tuple(SUPERCLASSES),
    mean=(0.5071, 0.4865, 0.4409),
    std=(0.2673, 0.2564, 0.2762),
    torchvision_class="CIFAR100",
    published=(("https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz", "eb9058c3a382ffc7106e4002c42a8d85"),),
    read_download=_read_download,
)


def cifar100_coarse(data_dir: Path | None, *, num_train: int | None = None, num_test: int | None = None) -> Task:
    """Return the task; images have shape (3, 32, 32), 20 classes of five fine ones each.

    `num_train` and `num_test` take that many samples, every class in its share, the first ones of each. Raises
    MissingData where `data_dir` does not hold the data and they cannot be downloaded into it, ValueError where
    cifar100_coarse.npz is malformed or has fewer samples than asked for.
    """
    return SOURCE.task(data_dir, num_train, num_test)
