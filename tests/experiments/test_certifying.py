"""What certificates of observed sets say of each query."""

import math

import numpy as np

from thornbed.experiments.certifying import certified_answers

SETS = [
    {"silent": [], "determined": True, "tolerated": 2, "radius_95": 3.0, "steepness": 0.5},
    {"silent": [1], "determined": True, "tolerated": 1, "radius_95": None, "steepness": 0.0},
    {"silent": [0, 1], "determined": False, "tolerated": 0, "radius_95": None, "steepness": 0.0},
]


def test_clipped_blocks_count_as_liars_and_what_was_missed_of_the_minimum_counts_in_the_radius():
    here, gone = [0.0, 0.0, 0.0], math.nan
    answers = {
        "clean": np.array([1, 0, 1, 1, 1, 0]),
        "moved_clean": np.array([here, here, here, here, [0.0, gone, 0.0], [gone, gone, 0.0]]),
        "gap_clean": np.array([0.0, 0.25, 0.0, 0.0, 0.0, 0.0]),
        "clipped_clean": np.array([0, 0, 2, 3, 1, 0]),
        "label_radius_clean": np.array([3.0, 3.2, 3.0, 9.0, 9.0, 9.0]),
    }
    found = certified_answers(answers, SETS)
    assert found["tolerated_clean"].tolist() == [2, 2, 0, -1, 0, -1]
    assert found["radius_clean"].tolist() == [3.0, 3.5, 3.0, math.inf, math.inf, math.inf]
    assert found["label_certified_clean"].tolist() == [True, False, True, False, False, False]
    assert set(found) == {"tolerated_clean", "radius_clean", "label_certified_clean"}  # there was no attack
