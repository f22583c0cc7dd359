"""What a worker of a sweep does to its own process."""

import subprocess
import sys

PROGRAM = """
from thornbed.experiments.sweeps.workers import hold_threads
hold_threads(1)
import numpy, scipy.linalg, threadpoolctl, torch
pools = threadpoolctl.threadpool_info()
assert {pool["user_api"] for pool in pools} >= {"blas"}, pools
assert all(pool["num_threads"] == 1 for pool in pools), pools
assert torch.get_num_threads() == 1
"""


def test_a_worker_holds_every_pool_of_threads():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
