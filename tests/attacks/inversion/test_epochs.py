"""Updates of several epochs: matching on distances made by hand, and the problems that matched images become."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from thornbed.attacks.inversion import Observation, Reconstruction
from thornbed.attacks.inversion._epochs import by_client, in_order, joint_problems, per_observation
from thornbed.attacks.inversion._matching import chains, match_epochs, match_greedily, pooled_distances
from thornbed.attacks.inversion._problem import weigh_all
from thornbed.attacks.inversion.agic import agic
from thornbed.tasks.metrics.images import psnr

ALL = torch.ones(3, 3, dtype=torch.bool)


def test_the_nearest_pair_is_matched_first() -> None:
    distances = torch.tensor([[0.3, 0.1, 0.9], [0.4, 0.2, 0.8], [0.5, 0.6, 0.7]])
    # 0.1 takes row 0 and column 1, 0.4 row 1 and column 0, and 0.7 is left; optimal would be 0.2 + 0.3 + 0.7
    assert match_greedily(distances, ALL) == [(0, 1), (1, 0), (2, 2)]


def test_what_is_not_allowed_is_not_matched() -> None:
    distances = torch.tensor([[0.3, 0.1, 0.9], [0.4, 0.2, 0.8], [0.5, 0.6, 0.7]])
    allowed = torch.tensor([[True, False, False], [True, True, False], [False, False, False]])
    assert match_greedily(distances, allowed) == [(1, 1), (0, 0)]


def test_ties_keep_their_order_and_nan_comes_last() -> None:
    nan = float("nan")
    assert match_greedily(torch.ones(2, 2), ALL[:2, :2]) == [(0, 0), (1, 1)]
    assert match_greedily(torch.tensor([[nan, 5.0], [1.0, nan]]), ALL[:2, :2]) == [(1, 0), (0, 1)]
    assert match_greedily(torch.tensor([[1.0], [0.0]]), ALL[:2, :1]) == [(1, 0)]


def test_pooling_averages_squares_first() -> None:
    a = torch.tensor([[[[0.0, 1.0], [1.0, 0.0]]]])
    b = torch.tensor([[[[1.0, 0.0], [0.0, 1.0]]], [[[0.0, 1.0], [1.0, 1.0]]]])
    assert pooled_distances(a, b, 1).tolist() == [[1.0, 0.25]]
    assert pooled_distances(a, b, 2).tolist() == [[0.0, 0.0625]]


def looked(images: Tensor, labels: list[int]) -> Reconstruction:
    return Reconstruction(
        images=images, labels=torch.tensor(labels), losses=torch.zeros(1), best_step=0, seconds_per_step=0.0,
        together=1, snapshots=images[None][:0], snapshot_steps=(),
    )  # fmt: skip


def flat(*values: float) -> Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1).expand(-1, 1, 2, 2)


def test_only_updates_with_a_common_label_come_into_question() -> None:
    first = [looked(flat(0.0), [1]), looked(flat(1.0), [2])]
    second = [looked(flat(0.1), [2]), looked(flat(0.8), [1])]
    assert match_epochs(first, second, pooling=1, label_filter=False) == [((0, 0), (0, 0)), ((1, 0), (1, 0))]
    assert match_epochs(first, second, pooling=1, label_filter=True) == [((0, 0), (1, 0)), ((1, 0), (0, 0))]


def test_epochs_are_chained_and_no_image_is_lost() -> None:
    first = [looked(flat(0.0, 0.5), [1, 2])]
    second = [looked(flat(0.52), [2]), looked(flat(0.9), [3])]
    third = [looked(flat(0.5, 0.91), [3, 2])]
    found = chains([first, second, third], pooling=1, label_filter=True)
    assert found == [[(0, 0), None, None], [(0, 1), (0, 0), (0, 0)], [None, (1, 0), (0, 1)]]


@pytest.fixture
def two_epochs(network, observe, images):
    """Return images, and what is seen of two epochs of two updates of two, which share one image each."""
    x, y = images(4, seed=2), torch.tensor([0, 1, 2, 3])
    order = [(1, [0, 1]), (1, [2, 3]), (2, [2, 0]), (2, [3, 1])]
    seen = [observe(network(epoch), x[rows], y[rows], epoch=epoch) for epoch, rows in order]
    return x, seen


def test_observations_are_sorted_by_client_and_epoch(network, observe, images) -> None:
    y = torch.tensor([0])
    where = [(7, 2), (3, 1), (7, 1), (3, 4), (7, 2)]
    seen = [observe(network(), images(1), y, client=client, epoch=epoch) for client, epoch in where]
    assert by_client(seen) == [[[2], [0, 4]], [[1], [3]]]


def test_samples_that_share_an_update_pair_are_one_problem_and_every_image_is_for_one(two_epochs) -> None:
    _, seen = two_epochs
    labels = [each.labels for each in seen]
    samples = [[(0, 0), (2, 1)], [(0, 1), (3, 1)], [(1, 0), (2, 0)], [(1, 1), (3, 0)]]
    joints = joint_problems(seen, labels, samples, lambda each: weigh_all(each.model), 0.25)
    assert [joint.shared for joint in joints] == [
        {(0, 0): 0, (2, 1): 0}, {(0, 1): 0, (3, 1): 0}, {(1, 0): 0, (2, 0): 0}, {(1, 1): 0, (3, 0): 0},
    ]  # fmt: skip
    first = joints[0].problem
    assert [view.gamma for view in first.views] == [1.0, 0.25]
    assert [view.rows.tolist() for view in first.views] == [[0, 1], [2, 0]]
    assert first.labels.tolist() == [0, 1, 2]
    same = joint_problems(seen, labels, [[(0, 0), (2, 1)], [(0, 1), (2, 0)], [(1, 0), None], [None, (3, 0)]],
                          lambda each: weigh_all(each.model), 0.25)  # fmt: skip
    assert [len(joint.problem.views) for joint in same] == [2, 1, 1]
    assert [view.rows.tolist() for view in same[0].problem.views] == [[0, 1], [1, 0]]
    assert same[2].problem.views[0].gamma == 1.0


def test_each_observation_gets_its_images_back_in_its_order(two_epochs) -> None:
    _, seen = two_epochs
    samples = [[(0, 0), (2, 1)], [(0, 1), (3, 1)], [(1, 0), (2, 0)], [(1, 1), (3, 0)]]
    labels = [each.labels for each in seen]
    joints = joint_problems(seen, labels, samples, lambda each: weigh_all(each.model), 0.1)
    found = [looked(flat(10 * i, 10 * i + 1, 10 * i + 2), joints[i].problem.labels.tolist()) for i in range(4)]
    gathered = per_observation(seen, labels, joints, found)
    assert [each.images[:, 0, 0, 0].tolist() for each in gathered] == [[0, 10], [20, 30], [20, 0], [30, 10]]
    assert [each.labels.tolist() for each in gathered] == [[0, 1], [2, 3], [2, 0], [3, 1]]


def test_an_image_of_two_updates_has_in_each_the_label_that_this_one_was_read_with(two_epochs) -> None:
    _, seen = two_epochs
    labels = [torch.tensor(own) for own in ([0, 1], [2, 3], [0, 2], [1, 4])]
    samples = [[(0, 0), (2, 1)], [(0, 1), (3, 1)], [(1, 0), (2, 0)], [(1, 1), (3, 0)]]
    joints = joint_problems(seen, labels, samples, lambda each: weigh_all(each.model), 0.1)
    found = [looked(flat(0.0, 1.0, 2.0), joint.problem.labels.tolist()) for joint in joints]
    gathered = per_observation(seen, labels, joints, found)
    assert [each.labels.tolist() for each in gathered] == [own.tolist() for own in labels]


def test_the_same_samples_are_told_apart_by_their_labels(network, observe, images) -> None:
    x, y = images(3), torch.tensor([4, 0, 2])
    seen = [observe(network(), x, y), observe(network(1), x[[1, 2, 0]], y[[1, 2, 0]], epoch=2)]
    samples = in_order(seen, [each.labels for each in seen], [[0], [1]])
    assert samples == [[(0, 1), (1, 0)], [(0, 2), (1, 1)], [(0, 0), (1, 2)]]
    with pytest.raises(ValueError, match="as many updates in every epoch of a client: there are 2, 1"):
        in_order(seen, [each.labels for each in seen], [[0, 1], [1]])
    fewer = observe(network(1), x[:2], y[:2], epoch=2)
    with pytest.raises(ValueError, match="num_samples = 3, 2"):
        in_order([seen[0], fewer], [y, y[:2]], [[0], [1]])


@pytest.mark.parametrize("epochs", ["matched", "ordered"])
def test_two_epochs_of_one_image_tell_more_than_one(epochs, network, observe, images) -> None:
    # few gradients of few parameters: one update does not determine an image, two do better
    x = images(3, (2, 6, 6), seed=4)
    y = torch.tensor([0, 2, 4])
    order = {1: [0, 1, 2], 2: [0, 1, 2] if epochs == "ordered" else [2, 0, 1]}
    seen = [observe(network(epoch), x[[i]], y[[i]], epoch=epoch) for epoch, rows in order.items() for i in rows]
    options = {"steps": 120, "beta": 1.0, "labels": "idlg", "decay": "cosine", "total_variation": 0.0}
    truth = [x[[i]] for rows in order.values() for i in rows]

    def mean_psnr(found: list[Reconstruction]) -> float:
        return sum(float(psnr(each.images, real)) for each, real in zip(found, truth, strict=True)) / len(found)

    alone = agic(seen, torch.Generator().manual_seed(0), **options)
    joint = agic(
        seen, torch.Generator().manual_seed(0), epochs=epochs, matching_steps=30, gamma=1.0, snapshots=2, **options
    )
    assert [each.labels.tolist() for each in joint] == [y[[i]].tolist() for rows in order.values() for i in rows]
    assert mean_psnr(joint) > mean_psnr(alone) + 1
    # an image is one image, whichever update it is reported with
    assert torch.equal(joint[0].images, joint[3 + order[2].index(0)].images)
    assert joint[0].snapshots.shape == (2, 1, 2, 6, 6)


def test_a_client_seen_once_is_read_alone_and_all_such_are_refused(network, observe, images, generator) -> None:
    y = torch.tensor([0])
    seen = [observe(network(e), images(1, seed=c), y, client=c, epoch=e) for c, e in [(0, 1), (0, 2), (1, 1)]]
    found = agic(seen, generator, epochs="matched", steps=2, matching_steps=2, beta=1.0)
    assert len(found) == 3
    assert torch.equal(found[0].images, found[1].images)
    with pytest.raises(ValueError, match="at least two epochs of a client: there is one"):
        agic(seen[1:], generator, epochs="matched", steps=2)


def test_steps_that_are_read_as_one_are_not_listed(network, observe, images, generator) -> None:
    seen = replace(observe(network(), images(1), torch.tensor([0])), local_steps=2**31 - 1, learning_rate=1e-4)
    assert len(agic([seen], generator, steps=1, beta=1.0)) == 1


def test_squares_larger_than_an_image_are_refused_before_any_search(two_epochs, generator) -> None:
    _, seen = two_epochs
    for epochs in ("matched", "paired"):
        with pytest.raises(ValueError, match="at most a side of the images: pooling = 7, side = 6"):
            agic(seen, generator, epochs=epochs, pooling=7, beta=1.0)
    agic(seen, generator, epochs="ordered", pooling=7, beta=1.0, steps=1, labels="known")


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"shape": "cubic"}, "shape out of linear, exponential, logarithmic: shape = cubic"),
        ({"batch_norm": "all"}, "batch_norm out of mean, preceding, none: batch_norm = all"),
        ({"epochs": "two"}, "epochs out of alone, paired, matched, ordered: epochs = two"),
        ({"local_steps": "all"}, "local_steps out of one_batch, simulated: local_steps = all"),
        ({"beta": 0.0}, "finite beta > 0: beta = 0.0"),
        ({"gamma": float("nan")}, "finite gamma > 0: gamma = nan"),
        ({"total_variation": -1.0}, "finite total_variation >= 0: total_variation = -1.0"),
        ({"matching_steps": 0}, "matching_steps >= 1: matching_steps = 0"),
        ({"pooling": 0}, "pooling >= 1: pooling = 0"),
    ],
)
def test_options_out_of_range_are_refused(wrong, sentence, network, observe, images, generator) -> None:
    seen: list[Observation] = [observe(network(), images(1), torch.tensor([0]))]
    with pytest.raises(ValueError, match=f"agic needs (a )?{sentence}"):
        agic(seen, generator, **wrong)
