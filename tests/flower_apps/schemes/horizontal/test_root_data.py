"""The server's own data: rows of the training set, never of the test set, trained on as a client trains."""

import pytest
import torch

from tests.conftest import read_lines
from thornbed.clients.local_training import one_thread, train
from thornbed.experiments.runs.launch import prepare
from thornbed.flower_apps.schemes.horizontal.run import HorizontalRun
from thornbed.flower_apps.schemes.horizontal.server import root_training
from thornbed.flower_apps.settings import BadSettings, settings_from
from thornbed.protocol.randomness import generator
from thornbed.protocol.vector import Layout, to_arrays

SMALL = {"model": "mlp(hidden=(16,))", "num-clients": 6, "strategy": "fltrust", "local-epochs": 0.5}


def resolved(**values):
    return prepare(settings_from({**SMALL, **values}))


def root_samples(settings, count):
    return HorizontalRun(settings).root_samples(count)


def pictures(x):
    return {tuple(row.flatten().tolist()) for row in x}


def test_they_are_rows_of_the_training_set_and_none_of_the_test_set():
    settings = resolved()
    task, samples = HorizontalRun(settings).task, root_samples(settings, 100)
    assert len(samples) == len(pictures(samples.x)) == 100
    assert pictures(samples.x) <= pictures(task.samples("train").x)
    assert not pictures(samples.x) & pictures(task.samples("test").x)
    known = {tuple(row.flatten().tolist()): int(label) for row, label in zip(task.samples("train").x, task.train.y)}
    assert samples.y.tolist() == [known[tuple(row.flatten().tolist())] for row in samples.x]


def test_they_are_collected_once_and_depend_on_the_seed():
    one, again, other = (root_samples(resolved(seed=seed), 50).x for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert torch.equal(one[:20], root_samples(resolved(seed=1), 20).x)


@pytest.mark.parametrize("count", [0, 1438])
def test_as_many_as_there_are_not_are_refused(count):
    with pytest.raises(BadSettings, match=f"asks for {count} trusted samples; --task digits has 1 to 1437"):
        root_samples(resolved(), count)


def test_the_root_update_is_what_as_many_steps_as_the_average_client_makes_make_of_these_samples():
    settings = resolved()
    run = HorizontalRun(settings)
    network = run.new_model()
    arrays = to_arrays(network.state_dict())
    layout = Layout.of(arrays)
    update = root_training(run)(arrays, 3, 60)
    with one_thread():
        train(
            network, root_samples(settings, 60), optimizer=run.optimizer, batch_size=settings.batch_size,
            epochs=0.5 * 1437 / 6 / 60, generator=generator(settings.seed, "root", 3),
        )  # fmt: skip
    assert torch.equal(update, layout.flatten(to_arrays(network.state_dict())) - layout.flatten(arrays))
    assert update.any()
    assert not torch.equal(update, root_training(run)(arrays, 4, 60))  # another order in another round


def test_a_run_with_fltrust_distrusts_who_sends_the_opposite(thornbed, tmp_path):
    typed = thornbed(
        "run", "--num-clients", 6, "--partition", "iid", "--model", "mlp(hidden=(16,))", "--strategy", "fltrust",
        "--attack", "sign_flip", "--num-malicious", 2, "--rounds", 2, "--output", tmp_path / "r",
    )  # fmt: skip
    assert typed.code == 0, typed.err
    for line in read_lines(tmp_path / "r")[1:]:
        assert [score > 0 for score in line["defense"]["trust_scores"]] == [True] * 4 + [False] * 2
