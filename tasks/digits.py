"""Handwritten digits of 8x8 pixels that come with scikit-learn: a task that needs no data folder and no network.

Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998;
the 1,797 images of its test part, as `sklearn.datasets.load_digits` embeds them. Grey levels 0..16 are stored as
round(level * 255 / 16), so that decoded pixels are level / 16 up to half a step of 1/255.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits

from thornbed.tasks import Defaults, Samples, Task
from thornbed.tasks.sources.subset import stratified_rows, take

# Plain FedAvg with these very numbers: test accuracy 0.91-0.97 after 10 rounds and 0.96-0.98 after 30, over four seeds.
DEFAULTS = Defaults(model="cnn", batch_size=16, num_clients=20, clients_per_round=20)

NUM_TEST = 360


def digits(data_dir: Path | None, *, num_train: int | None = None, num_test: int | None = None) -> Task:
    """Return the task: 1,437 training and 360 test images of shape (1, 8, 8), ten classes.

    The split is fixed: the rows are permuted by NumPy's RandomState(0), whose stream never changes between versions,
    and the first 360 of them, every class in its share, are the test set; both parts keep the order of the data set.
    Neighbouring images may be by the same writer, so the test set holds no unseen writers. `data_dir` is not used.
    `num_train` and `num_test` take that many samples, every class in its share, the first ones of each; ValueError
    where there are not that many.
    """
    levels, labels = load_digits(return_X_y=True)
    x = torch.from_numpy(np.rint(levels * (255 / 16)).astype(np.uint8)).reshape(-1, 1, 8, 8)
    y = torch.from_numpy(labels.astype(np.int64))
    shuffled = torch.from_numpy(np.random.RandomState(0).permutation(len(y)))
    in_test = torch.zeros(len(y), dtype=torch.bool)
    in_test[shuffled[stratified_rows(y[shuffled], NUM_TEST)]] = True
    samples = Samples(x, y)
    return Task(
        name="digits",
        modality="image",
        num_classes=10,
        train=take(samples.select(~in_test), num_train, task="digits", option="num_train"),
        test=take(samples.select(in_test), num_test, task="digits", option="num_test"),
        mean=(0.3058,),  # of all pixels of the 1,437 training images, computed once
        std=(0.3762,),
        class_names=tuple("0123456789"),
    )
