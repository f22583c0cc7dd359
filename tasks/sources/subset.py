"""Taking samples with the same mix of classes, the same ones every time: fewer of them, or those to test on."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from thornbed.tasks.samples import Samples


def stratified_rows(labels: Tensor, count: int) -> Tensor:
    """Return `count` of the N row indices, ascending, every class in its share of the whole.

    Class k, with n_k of the N rows, gets floor(count * n_k / N) of them; what is then left goes one each to the
    classes with the largest remainders, lower classes first. Of each class the first rows are taken.
    `labels` is (N,) int64 and 1 <= count <= N.
    """
    class_sizes = torch.bincount(labels)
    quota = class_sizes * count // len(labels)
    remainder = class_sizes * count % len(labels)
    left = count - int(quota.sum())
    quota[torch.sort(remainder, descending=True, stable=True).indices[:left]] += 1

    by_class = torch.sort(labels, stable=True).indices
    first_of_class = torch.cumsum(class_sizes, dim=0) - class_sizes
    rank_in_class = torch.arange(len(labels)) - first_of_class[labels[by_class]]
    return by_class[rank_in_class < quota[labels[by_class]]].sort().values


def rows_to_test(labels: Tensor, count: int, *, split: int = 0) -> Tensor:
    """Return a mask (N,) of `count` rows that are drawn, every class in its share; `split` says which of the draws.

    The rows are permuted by NumPy's RandomState(split), whose stream never changes between versions, and
    `stratified_rows` are taken of that.
    """
    shuffled = torch.from_numpy(np.random.RandomState(split).permutation(len(labels)))
    in_test = torch.zeros(len(labels), dtype=torch.bool)
    in_test[shuffled[stratified_rows(labels[shuffled], count)]] = True
    return in_test


def take(samples: Samples, count: int | None, *, task: str, option: str) -> Samples:
    """Return the samples, or the `count` stratified ones of `stratified_rows`, in the order of the data set.

    Raises ValueError where there are not that many; `task` and `option` are for its text.
    """
    if count is None:
        return samples
    if not 1 <= count <= len(samples):
        raise ValueError(f"{task} needs {option} from 1 to {len(samples)}, the samples it has: {option} = {count}")
    return samples.select(stratified_rows(samples.y, count))
