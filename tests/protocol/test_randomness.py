import torch

from thornbed.protocol.randomness import derived_seed, generator


def test_a_path_is_a_stream():
    one = torch.rand(4, generator=generator(7, "train", 3, 12))
    assert torch.equal(one, torch.rand(4, generator=generator(7, "train", 3, 12)))
    for other in [
        (8, "train", 3, 12),
        (7, "data", 3, 12),
        (7, "train", 4, 12),
        (7, "train", 31, 2),
        (7, "train", "3", 12),
    ]:
        assert not torch.equal(one, torch.rand(4, generator=generator(*other)))


def test_seeds_are_the_same_in_every_process_and_fit_torch():
    assert derived_seed(0, "model") == 6349602971276943580  # a constant: no salt of the process is in it
    assert all(0 <= derived_seed(seed, "x", -5) < 2**63 for seed in range(100))
