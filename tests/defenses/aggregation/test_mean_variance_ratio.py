import pytest
import torch

from thornbed.defenses.aggregation.mean_variance_ratio import mean_variance_ratio
from thornbed.defenses.reporting import listening


def equal(n):
    return torch.full((n,), 1 / n)


# Means 2, 1, 0 and 3, sample variances 2/3, 8/3, 2/3 and 0, so that mean^2 / variance is 6, 3/8, 0 and infinite.
UPDATES = torch.tensor([[1.0, -1.0, -1.0, 3.0], [2.0, 1.0, 0.0, 3.0], [3.0, 3.0, 1.0, 3.0], [2.0, 1.0, 0.0, 3.0]])


def test_by_hand():
    with listening() as figures:
        result = mean_variance_ratio(UPDATES, equal(4), threshold=0.4)
    assert result.tolist() == [2.0, 0.0, 0.0, 3.0]
    assert figures == {"masked_share": 0.5, "trimmed_per_tail": 1}


def test_the_threshold_is_strict():
    assert mean_variance_ratio(UPDATES, equal(4), threshold=0.375)[1] == 0.0
    assert mean_variance_ratio(UPDATES, equal(4), threshold=0.374)[1] == 1.0


def test_what_passes_is_the_trimmed_mean():
    updates = torch.tensor([[1.0], [1.0], [2.0], [3.0], [8.0]])
    assert mean_variance_ratio(updates, equal(5), threshold=0.1, alpha=0.2).item() == 2.0
    assert mean_variance_ratio(updates, equal(5), threshold=0.1, alpha=0.0).item() == 3.0


def test_the_default_masks_as_much_as_a_sign_consistency_of_a_fifth():
    """Normal updates whose mean varies by coordinate: both masks pass those beyond about 0.25 deviations."""
    generator = torch.Generator().manual_seed(0)
    means = torch.linspace(0, 1, 2000)
    updates = means + torch.randn(200, 2000, generator=generator)
    kept = mean_variance_ratio(updates, equal(200)) != 0
    assert means[kept].min() == pytest.approx(0.2533, abs=0.15)
    assert means[~kept].max() == pytest.approx(0.2533, abs=0.25)
    assert float(kept.float().mean()) == pytest.approx(1 - 0.2533, abs=0.02)


def test_one_outlier_masks_a_coordinate_and_cannot_lead_it():
    updates = torch.full((20, 1), 0.5)
    updates[3] = 1e30
    assert mean_variance_ratio(updates, equal(20)).item() == 0.0  # 1/20 is below 0.064
    assert mean_variance_ratio(updates, equal(20), threshold=0.04).item() == 0.5


def test_the_variance_does_not_cancel():
    """Deviations of 1e-4 about 1000: the mean of squares minus the squared mean would be noise in float32."""
    updates = 1000 + torch.tensor([[-1.0], [0.0], [1.0]]) * 2.0**-10
    ratio = 1000.0**2 / 2.0**-20
    assert mean_variance_ratio(updates, equal(3), threshold=0.999 * ratio, alpha=0.3).item() == 1000.0
    assert mean_variance_ratio(updates, equal(3), threshold=1.001 * ratio, alpha=0.3).item() == 0.0


@pytest.mark.parametrize("threshold", [-0.1, float("inf"), float("nan")])
def test_a_threshold_out_of_range_is_refused(threshold):
    message = f"mean_variance_ratio needs a finite threshold >= 0: n = 4, threshold = {threshold}"
    with pytest.raises(ValueError, match=message):
        mean_variance_ratio(UPDATES, equal(4), threshold=threshold)


def test_one_client_has_no_variance():
    with pytest.raises(ValueError, match="mean_variance_ratio needs n >= 2 for a sample variance: n = 1, d = 2"):
        mean_variance_ratio(torch.ones(1, 2), equal(1), alpha=0.0)
