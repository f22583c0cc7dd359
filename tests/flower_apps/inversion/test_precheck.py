"""What an inversion will be shown is known before the run, and so is what it will refuse."""

import pytest
import torch

from thornbed.flower_apps.inversion.precheck import Update, check_inversion, few_of, foreseen
from thornbed.flower_apps.resolving import check, resolve
from thornbed.flower_apps.schemes.horizontal.run import HorizontalRun
from thornbed.flower_apps.settings import BadSettings, settings_from
from thornbed.protocol.recordings import Facts, load_originals, load_update, recordings_in

FLAGS = {
    "task": "digits(num_train=60)",
    "model": "cnn(width=2)",
    "num_clients": 4,
    "rounds": 3,
    "optimizer": "sgd",
    "curious": "agic(steps=2)",
    "curious_every": 1,
    "curious_clients": "all",
}


def resolved(**values):
    return resolve(settings_from({**FLAGS, **values}))


@pytest.mark.parametrize(
    "flags",
    [
        {"batch_size": 4, "local_epochs": 0.4, "continue_epochs": True, "partition": "iid"},
        {"batch_size": 7, "clients_per_round": 2, "partition": "dirichlet(alpha=3.0)", "curious_clients": "1,3"},
        {"batch_size": 1, "clients_per_round": 3, "curious_every": 2, "curious_clients": "auto", "seed": 3},
        {"batch_size": 5, "attack": "collude + scaling(factor=2.0)", "num_malicious": 2, "attack_share": 0.5},
        {"batch_size": 5, "defense": "flip(warmup_steps=1, inversion_steps=1)", "rounds": 1},
    ],
)
def test_what_is_foreseen_is_what_is_read(flags, thornbed, tmp_path):
    settings = resolved(**flags)
    typed = {**FLAGS, **flags, "curious": "none", "record": tmp_path / "rec", "output": tmp_path / "run"}
    words = [[f"--{name.replace('_', '-')}", *([] if value is True else [value])] for name, value in typed.items()]
    done = thornbed("run", *(word for pair in words for word in pair))
    assert done.code == 0, done.err
    read = [(path, load_update(path).facts) for path in recordings_in(tmp_path / "rec")]
    known = [Update(facts, load_originals(path, facts) is not None) for path, facts in read]
    assert foreseen(HorizontalRun(settings)) == known
    assert len(known) > 0


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (
            {"batch_size": 12},
            'gradinversion") infers labels that differ: num_samples = 15, num_classes = 10; labels="co',
        ),
        ({"curious": "agic(labels='idlg')"}, 'agic(labels="idlg") reads the label of one sample: num_samples = 15'),
        ({"curious": "agic(labels='counts')", "model": "mlp"}, "this model has none: beta = 50.0; beta=1 weighs all"),
        (
            {"curious": "agic(labels='counts', epochs='matched')", "rounds": 1},
            'agic(epochs="matched") needs observations of at least two epochs of a client: there is one',
        ),
        (
            {"curious": "agic(labels='counts', epochs='ordered')", "local_epochs": 0.4, "continue_epochs": True},
            'agic(epochs="ordered") needs as many updates in every epoch of a client: there are 2, 1',
        ),
        (
            {"curious": "dlg_adam(labels='counts')", "optimizer": "adam"},
            "dlg_adam simulates local steps at the learning rate of the client, which is not known",
        ),
        (
            {"curious": "inverting_gradients(labels='counts')", "optimizer": "sgd(momentum=0.9)"},
            "inverting_gradients simulates local steps at the learning rate of the client, which is not known",
        ),
        (
            {"curious": "agic(labels='known')", "attack": "collude + sign_flip", "num_malicious": 2},
            'agic(labels="known") needs observations that have their labels: this one has none',
        ),
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_doomed_inversion_is_refused_before_the_run(flags, sentence):
    with pytest.raises(BadSettings) as refused:
        check(resolved(**{"batch_size": 4, "partition": "iid", **flags}))
    assert sentence in str(refused.value)


def test_it_is_refused_with_one_sentence_and_nothing_is_trained(thornbed, tmp_path):
    flags = ["--task", "digits", "--model", "mlp(hidden=(4,))", "--curious", "agic(labels='counts')"]
    typed = thornbed("run", *flags, "--output", tmp_path / "run")
    assert typed.code == 2
    assert typed.sentence == (
        "thornbed: agic weighs layers by the convolutions, and this model has none: beta = 50.0; beta=1 weighs all "
        "layers alike"
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "flags",
    [
        {"curious": "agic(labels='counts', epochs='matched')", "rounds": 2},
        {"curious": "agic(labels='known', epochs='ordered')", "rounds": 2, "batch_size": 15},
        {"curious": "dlg_adam(labels='known')"},
        {"curious": "inverting_gradients(labels='idlg')", "batch_size": 1, "local_epochs": 0.01},
        {"curious": "agic(labels='known')", "attack": "collude + sign_flip", "curious_clients": "0,1"},
    ],
)
@pytest.mark.filterwarnings("error")
def test_what_will_work_is_taken(flags):
    check(resolved(**{"batch_size": 4, "partition": "iid", **flags}))


def test_in_deployment_the_server_refuses_what_inline_refuses_and_whoever_has_no_data_cannot_tell():
    deployed = {"engine": "deployment", "superlink": "10.0.0.5:8000", "optimizer": "sgd"}
    doomed = resolved(**deployed, curious="agic(labels='idlg')")
    check(doomed, data=False)
    with pytest.raises(BadSettings, match="idlg"):
        check(doomed)


def test_momentum_that_hides_the_learning_rate_is_refused_with_the_optimizer_that_does_not():
    doomed = resolved(curious="inverting_gradients(labels='counts')", optimizer="sgd(momentum=0.9)", batch_size=4)
    with pytest.raises(BadSettings, match="--optimizer sgd, without options"):
        check(doomed)
    check(doomed.model_copy(update={"optimizer": "sgd"}))


def update(client, epoch, num_samples=1, server_round=1):
    facts = {"model": "cnn", "sample_shape": (1, 8, 8), "num_classes": 10, "num_samples": num_samples}
    return Update(Facts(**facts, client=client, epoch=epoch, round=server_round), True)


def test_a_few_stand_for_all():
    alike = [update(client, epoch, server_round=epoch) for epoch in (1, 2, 3) for client in range(500)]
    assert few_of(alike) == [update(0, 1, server_round=1), update(0, 2, server_round=2)]
    assert few_of([update(client, 5) for client in (3, 1)]) == [update(3, 5)]
    steps = [update(0, epoch, server_round=10 * epoch + step) for epoch in (1, 2) for step in range(10)]
    assert few_of(steps) == [steps[0], steps[10]]
    last = [update(0, epoch, num_samples=step // 9 + 1) for epoch in (1, 2, 3) for step in range(10)]
    assert few_of(last) == [last[0], last[9], last[10], last[19]]
    assert few_of([]) == []


def test_what_differs_is_not_left_out():
    other_client = [update(0, 1), update(1, 1, num_samples=2), update(2, 1)]
    assert few_of(other_client) == other_client[:2]
    later_epoch = [update(0, 1), update(0, 2), update(0, 3, num_samples=2), update(0, 4)]
    assert few_of(later_epoch) == later_epoch[:3]
    several_an_epoch = [update(0, 1), update(0, 1, server_round=2), update(0, 2, server_round=3)]
    assert few_of(several_an_epoch) == several_an_epoch
    seen_once = [update(0, 1), update(0, 2), update(1, 2)]
    assert few_of(seen_once) == seen_once
    assert len(few_of([update(0, 1), Update(update(1, 1).facts, False)])) == 2


def test_many_clients_in_many_rounds_are_few_for_the_attack(monkeypatch):
    settings = resolved(task="digits", num_clients=200, clients_per_round=40, rounds=30, partition="iid", batch_size=2)
    run, shown = HorizontalRun(settings), []

    def attack(observations, generator):
        shown.extend(observations)

    monkeypatch.setattr("thornbed.flower_apps.inversion.precheck.attack_of", lambda spec: attack)
    check_inversion(run)
    assert len(foreseen(run)) == 30 * 40
    assert 2 <= len(shown) < 30
    assert all(tensor.untyped_storage().nbytes() == 4 for seen in shown for tensor in seen.gradient.values())
    assert all(torch.isnan(tensor).all() for seen in shown for tensor in seen.gradient.values())


def test_a_run_that_goes_on_is_read_where_it_goes_on(thornbed, tmp_path):
    """Its first epoch is done, and nobody kept it: the second alone cannot be matched."""
    flags = ["--task", "digits(num_train=60)", "--model", "cnn(width=2)", "--num-clients", 4, "--optimizer", "sgd"]
    first = [*flags, "--rounds", 1, "--curious", "agic(steps=2, labels='counts')", "--curious-every", 1]
    assert thornbed("run", *first, "--output", tmp_path / "run").code == 0
    again = ["run", "--resume", "--output", tmp_path / "run", "--rounds"]
    typed = thornbed(*again, 2, "--curious", "agic(steps=2, labels='counts', epochs='matched')")
    assert typed.code == 2
    assert "needs observations of at least two epochs of a client: there is one" in typed.sentence
    assert thornbed(*again, 2).code == 0


def test_a_run_that_goes_on_with_nothing_left_to_read_is_refused(thornbed, tmp_path):
    flags = ["--task", "digits(num_train=60)", "--model", "cnn(width=2)", "--num-clients", 4, "--rounds", 1]
    assert thornbed("run", *flags, "--output", tmp_path / "run").code == 0
    typed = thornbed("run", "--resume", "--output", tmp_path / "run", "--rounds", 2, "--curious", "agic(steps=2)")
    assert typed.code == 2
    assert "has nothing to invert: the rounds that it reads are done in" in typed.sentence
