"""The largest entries stay, the others are gone, and it says how many."""

import pytest
import torch

from thornbed.defenses.perturbation.top_k import top_k
from thornbed.defenses.reporting import listening

UPDATE = torch.tensor([0.1, -5.0, 0.0, 2.0, -0.3, 0.2, 0.0, 1.0, 0.4, -2.5])


@pytest.mark.parametrize(
    ("share", "kept"), [(0.1, [1]), (0.3, [1, 3, 9]), (0.01, [1]), (1.0, list(range(10))), (0.26, [1, 3, 9])]
)
def test_the_largest_stay(share, kept):
    with listening() as figures:
        sparse = top_k(UPDATE, torch.Generator(), share=share)
    assert sparse.tolist() == [value if place in kept else 0.0 for place, value in enumerate(UPDATE.tolist())]
    assert figures["pruned_share"] == pytest.approx(1 - min(len(kept), 8) / 8)


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1, float("nan")])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(ValueError, match="top_k needs 0 < share <= 1"):
        top_k(UPDATE, torch.Generator(), share=share)
