import numpy as np
import pytest

from thornbed.defenses.clipping import clip_bound, clip_factors


def test_factors_by_hand():
    norms = np.array([5.0, 0.0, 10.0])
    assert clip_factors(norms, 5.0).tolist() == [1, 1, 0.5]
    assert clip_factors(norms, 0.0).tolist() == [0, 1, 0]
    assert clip_factors(np.array([4e38, 1e-300]), 1e-300).tolist() == [0, 1]


def test_a_bound_that_is_not_given_is_the_median():
    norms = np.array([1.0, 5.0, 2.0, 100.0])
    assert clip_bound("rule", "norm", None, norms) == 3.5
    assert clip_bound("rule", "norm", 0.5, norms) == 0.5


@pytest.mark.parametrize("value", [0.0, -1.0, float("inf"), float("nan")])
def test_refusals(value):
    with pytest.raises(ValueError, match=rf"rule needs a finite radius > 0: n = 3, radius = {value}"):
        clip_bound("rule", "radius", value, np.ones(3))
