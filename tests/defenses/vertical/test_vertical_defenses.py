"""Defenses of a vertical server against hand-made numbers."""

from __future__ import annotations

import doctest

import pytest
import torch

import thornbed.defenses.vertical
from thornbed.defenses.reporting import listening
from thornbed.defenses.vertical import InTurn, VerticalDefense
from thornbed.defenses.vertical.block_dropout import BlockDropout
from thornbed.defenses.vertical.embedding_clipping import EmbeddingClipping
from thornbed.defenses.vertical.gradient_clipping import GradientClipping
from thornbed.defenses.vertical.gradient_noise import GradientNoise
from thornbed.defenses.vertical.outlier_trimming import OutlierTrimming


def source() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_noise_has_its_variance_and_no_mean() -> None:
    noise = GradientNoise(variance=4.0).release(torch.zeros(1000, 5, 8), source())
    assert abs(float(noise.mean())) < 0.05
    assert abs(float(noise.var()) - 4) < 0.1
    assert not bool(GradientNoise(variance=0.0).release(torch.zeros(2, 2, 2), source()).any())


def test_only_long_blocks_are_shortened_to_the_bound_or_to_the_median() -> None:
    blocks = torch.tensor([[[3.0, 4.0], [0.0, 1.0], [0.0, 2.0]]])
    for defense in (EmbeddingClipping(max_norm=2.5), EmbeddingClipping()):
        bound = 2.5 if defense.max_norm else 2.0
        found, _ = defense.admit(blocks, torch.ones(1, 3, dtype=torch.bool), source(), training=False)
        torch.testing.assert_close(found, torch.tensor([[[0.6 * bound, 0.8 * bound], [0.0, 1.0], [0.0, 2.0]]]))
    with listening() as figures:
        found = GradientClipping().release(torch.cat([blocks, torch.zeros(1, 3, 2)]), source())
    assert found[0].norm(dim=1).tolist() == [2.0, 1.0, 2.0]  # gradients of 0 do not move the median
    assert abs(figures["clipped_gradients_share"] - 1 / 3) < 1e-6


def test_the_gradient_of_a_shortened_embedding_has_no_part_along_it() -> None:
    sent = torch.tensor([[[3.0, 4.0]]], requires_grad=True)
    used = torch.ones(1, 1, dtype=torch.bool)
    EmbeddingClipping(max_norm=1.0).admit(sent, used, source(), training=True)[0][0, 0, 0].backward()
    # d (x / |x|) / d x1 at (3, 4): (1 - 9/25) / 5 and -12/25 / 5
    torch.testing.assert_close(sent.grad, torch.tensor([[[0.128, -0.096]]]))


def test_dropout_leaves_out_its_share_in_training_only_and_never_a_whole_sample() -> None:
    embeddings, used = torch.ones(4000, 5, 1), torch.ones(4000, 5, dtype=torch.bool)
    used[:, 4] = False
    grown, kept = BlockDropout(share=0.25).admit(embeddings, used, source(), training=True)
    assert abs(float(kept[:, :4].double().mean()) - 0.75) < 0.02
    assert not bool(kept[:, 4].any())
    assert abs(float(grown[0, 0, 0]) - 1 / 0.75) < 1e-6
    _, few = BlockDropout(share=0.99).admit(embeddings, used, source(), training=True)
    assert bool(few.any(dim=1).all())
    assert float(few.double().sum(dim=1).mean()) < 1.2
    same, all_used = BlockDropout(share=0.25).admit(embeddings, used, source(), training=False)
    assert torch.equal(same, embeddings)
    assert torch.equal(all_used, used)


def test_what_lies_far_from_its_own_partys_median_is_left_out() -> None:
    embeddings = torch.zeros(5, 2, 1)
    embeddings[:, 0, 0] = torch.tensor([0.0, 1.0, -1.0, 1.5, 9.0])
    embeddings[:, 1, 0] = torch.tensor([100.0, 101.0, 99.0, 900.0, 101.0])
    used = torch.ones(5, 2, dtype=torch.bool)
    used[3, 1] = False
    # medians 1 and 100 (the lower of an even number), median distances 1 and 1
    with listening() as figures:
        _, kept = OutlierTrimming(factor=4.0).admit(embeddings, used, source(), training=False)
    assert kept.tolist() == [[True, True], [True, True], [True, True], [True, False], [False, True]]
    assert figures["trimmed_share"] == 1 / 9


def test_most_of_a_batch_may_be_blank_at_a_party_and_what_is_not_is_no_outlier_yet() -> None:
    embeddings = torch.full((10, 1, 4), 3.0)
    embeddings[6:] += torch.randn(4, 1, 4, generator=source())
    embeddings[:6] += 1e-7 * torch.randn(6, 1, 4, generator=source())  # as equal as float32 has it
    embeddings[9] *= 1000
    _, kept = OutlierTrimming().admit(embeddings, torch.ones(10, 1, dtype=torch.bool), source(), training=True)
    assert kept[:, 0].tolist() == [True] * 9 + [False]
    same = torch.ones(10, 1, 4)
    assert bool(OutlierTrimming().admit(same, torch.ones(10, 1, dtype=torch.bool), source(), training=True)[1].all())


def test_the_example_in_the_documentation_runs() -> None:
    result = doctest.testmod(thornbed.defenses.vertical)
    assert result.attempted >= 4
    assert result.failed == 0


def test_gradient_noise_by_hand() -> None:
    gradients = torch.ones(2, 3, 4, dtype=torch.float64)
    drawn = 2 * torch.randn(2, 3, 4, generator=source(), dtype=torch.float64)
    with listening() as figures:
        found = GradientNoise(variance=4.0).release(gradients, source())
    torch.testing.assert_close(found, gradients + drawn)
    loud, norm = float(drawn.norm()), 24**0.5
    assert abs(figures["noise_share"] - loud / (loud + norm)) < 1e-12
    with listening() as figures:
        GradientNoise(variance=0.0).release(torch.zeros(2, 2, 2), source())
    assert figures["noise_share"] == 0.0


def test_dropout_by_hand() -> None:
    """What is drawn below the share goes, and of what was used at least one stays; the others grow."""
    used = torch.tensor([[True, True, True], [True, True, False], [False, False, False], [True, False, False]])
    drawn = torch.rand(used.shape, generator=source())
    expected = (drawn >= 0.6) & used
    for row in range(4):
        if used[row].any():
            expected[row, torch.where(used[row], drawn[row], -1.0).argmax()] = True
    with listening() as figures:
        embeddings, keeps = BlockDropout(share=0.6).admit(torch.ones(4, 3, 2), used, source(), training=True)
    assert torch.equal(keeps, expected)
    assert 0 < int(keeps.sum()) < int(used.sum())
    assert abs(figures["dropped_share"] - (1 - int(keeps.sum()) / int(used.sum()))) < 1e-12
    torch.testing.assert_close(embeddings, torch.full((4, 3, 2), 2.5))
    assert BlockDropout(share=0.0).admit(torch.ones(4, 3, 2), used, source(), training=True)[1].equal(used)
    for share in (-0.1, 1.0, 1.5):
        with pytest.raises(ValueError, match="0 <= share < 1"):
            BlockDropout(share=share)


def test_outliers_by_hand() -> None:
    """Distances from the middle 11 are 1, 0, 2, 1 and 8; of those away from it the median is 1."""
    embeddings = torch.tensor([10.0, 11.0, 9.0, 12.0, 19.0]).reshape(5, 1, 1)
    used = torch.ones(5, 1, dtype=torch.bool)
    for factor, stay in ((1.0, 3), (2.0, 4), (7.9, 4), (8.0, 5)):
        with listening() as figures:
            _, kept = OutlierTrimming(factor=factor).admit(embeddings, used, source(), training=False)
        assert int(kept.sum()) == stay
        assert abs(figures["trimmed_share"] - (1 - stay / 5)) < 1e-12
    unused = used.clone()
    unused[4] = False
    assert OutlierTrimming(factor=2.0).admit(embeddings, unused, source(), training=True)[1].sum() == 4
    with pytest.raises(ValueError, match="finite factor > 0"):
        OutlierTrimming(factor=0.0)


def test_several_defenses_act_in_turn_and_the_next_does_not_see_what_one_leaves_out() -> None:
    class Left(VerticalDefense):
        def admit(self, embeddings, used, generator, *, training):
            assert training
            return embeddings + 1, used & torch.tensor([[True, False]])

        def release(self, gradients, generator):
            return gradients * 3

    class Seen(VerticalDefense):
        def admit(self, embeddings, used, generator, *, training):
            seen.append((embeddings.clone(), used.clone()))
            torch.rand(1, generator=generator)
            return embeddings * 2, used

        def release(self, gradients, generator):
            return gradients + 1

    seen: list = []
    both, drawn = InTurn((Left(), Seen())), source()
    embeddings, used = both.admit(torch.ones(1, 2, 2), torch.ones(1, 2, dtype=torch.bool), drawn, training=True)
    assert seen[0][0].tolist() == [[[2, 2], [0, 0]]]
    assert used.tolist() == seen[0][1].tolist() == [[True, False]]
    assert embeddings.tolist() == [[[4, 4], [0, 0]]]
    assert both.release(torch.ones(1, 2, 2), source()).tolist() == [[[4, 4], [4, 4]]]
    assert not torch.equal(drawn.get_state(), source().get_state())
