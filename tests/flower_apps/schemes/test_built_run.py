"""A run is built once in a process."""

from __future__ import annotations

import pytest

from thornbed.flower_apps.resolving import resolve
from thornbed.flower_apps.schemes.scheme import built
from thornbed.flower_apps.settings import settings_from

RUNS = [
    {"strategy": "krum(num_byzantine=1)", "attack": "pixel_trigger(size=2) + scaling(factor=3.5)", "num_clients": 7},
    {"strategy": "mocha(lambda1=0.0625)", "task": "digit_nodes", "attack": "random_direct(ratio=0.15)"},
    {"strategy": "split_nn(embedding_size=17)", "num_clients": 4},
    {"strategy": "collaborative_inference(embedding_size=7)", "num_clients": 4},
]


@pytest.mark.parametrize("values", RUNS, ids=lambda values: values["strategy"])
def test_whoever_asks_for_the_run_of_the_same_settings_has_the_same_object(values):
    one, other = (resolve(settings_from({**values, "seed": 5})) for _ in range(2))
    assert built(one) is built(other)
    assert built(one) is not built(resolve(settings_from({**values, "seed": 6})))
