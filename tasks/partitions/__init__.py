"""Ways to divide the training rows over clients, one a file.

`NAME(labels (N,), num_partitions, seed, *, options) -> list[np.ndarray]`: disjoint int64 row indices that cover all
rows. The division itself is made by the partitioners of flwr-datasets.
"""
