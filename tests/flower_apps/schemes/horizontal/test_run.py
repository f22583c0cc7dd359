"""From settings to objects: seeds, roles, and nothing global."""

import pytest
import torch

from thornbed.attacks.update import Sight
from thornbed.clients.benign import Benign
from thornbed.flower_apps.resolving import check, resolve
from thornbed.flower_apps.run import run as runs
from thornbed.flower_apps.run.client import channel_of
from thornbed.flower_apps.schemes.horizontal.run import HorizontalRun, statistics_of
from thornbed.flower_apps.settings import BadSettings, settings_from

SIGHT = Sight(benign=lambda: torch.zeros(4), last_step=lambda: None)


def resolved(**values):
    return resolve(settings_from(values))


def role_of(settings, client, node_config):
    return HorizontalRun(settings).role(client, node_config)


def test_the_first_model_depends_on_the_seed_alone_and_leaves_torch_as_it_was():
    before = torch.get_rng_state()
    one, again, other = (HorizontalRun(resolved(seed=seed)).new_model().state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_model_that_is_built_leaves_the_generators_of_gpus_alone(monkeypatch):
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    HorizontalRun(resolved()).new_model()
    assert seeded == []


@pytest.mark.parametrize(
    ("model", "measured"),
    [
        ("cnn(width=2, norm='batch')", {"running_mean", "running_var"}),
        ("cnn(width=2, norm='frozen')", {"running_mean", "running_var"}),
        ("cnn(width=2, norm='none')", set()),  # what normalises the input is not sent
    ],
)
def test_statistics_are_what_a_model_sends_and_does_not_learn(model, measured):
    statistics = HorizontalRun(resolved(model=model)).statistics
    assert {name.rpartition(".")[2] for name in statistics} == measured


def test_a_parameter_of_two_names_is_no_statistic():
    network = torch.nn.ModuleDict({"one": torch.nn.Linear(2, 2), "other": torch.nn.Linear(2, 2)})
    network["other"].weight = network["one"].weight
    network.register_buffer("centre", torch.zeros(1))
    network.register_buffer("count", torch.zeros(1, dtype=torch.int64))
    assert statistics_of(network) == {"centre"}


def test_a_model_of_texts_takes_token_ids_and_learns_no_vectors(tmp_path):
    lines = ["user,text,label", *(f"u{row},the day {row},{row % 2}" for row in range(40))]
    (tmp_path / "sent140.csv").write_text("\n".join(lines))
    (tmp_path / "glove.txt").write_text("the 1 2 3\nday 0 1 0\n")
    settings = resolved(
        task="sent140", data_dir=str(tmp_path), model="lstm(hidden=4)", num_clients=2, clients_per_round=2
    )  # fmt: skip
    check(settings)
    run = HorizontalRun(settings)
    model = run.new_model()
    assert model(run.task.samples("test").x).shape == (4, 2)
    assert {value.shape[-1] for name, value in model.state_dict().items() if "weight_ih_l0" in name} == {3}
    assert not any("vector" in name for name in model.state_dict())
    with pytest.raises(ValueError, match="cnn takes images"):
        check(settings.model_copy(update={"model": "cnn"}))


def test_a_task_that_does_not_fit_into_memory_is_refused(monkeypatch):
    def huge(folder):
        raise MemoryError("Unable to allocate 222. TiB")

    monkeypatch.setattr(runs.plugins, "load", lambda kind, spec: huge)
    with pytest.raises(BadSettings, match="--task huge does not fit into memory: Unable to allocate"):
        runs.load_task("huge", "")


def test_partitions_depend_on_the_seed():
    one, again, other = (HorizontalRun(resolved(seed=seed)).partitions for seed in (1, 1, 2))
    assert all((a == b).all() for a, b in zip(one, again))
    assert any(len(a) != len(b) or (a != b).any() for a, b in zip(one, other))


def test_parts_of_an_attack_become_parts_of_a_role():
    role = role_of(resolved(attack="pixel_trigger + scaling(factor=3.0)"), 19, {})
    assert role.name == "backdoor+poisoning"
    update = torch.ones(4)
    assert role.outgoing(update, update[None], torch.Generator(), SIGHT).tolist() == [3.0] * 4
    assert isinstance(role_of(resolved(attack="pixel_trigger"), 0, {}), Benign)


def test_an_honest_client_sends_through_the_defense():
    role = role_of(resolved(defense="local_dp(clip_norm=1.0, noise_multiplier=0.0)"), 0, {})
    sent = role.outgoing(torch.tensor([3.0, 4.0]), torch.zeros(1, 2), torch.Generator(), SIGHT)
    assert sent.tolist() == pytest.approx([0.6, 0.8])


def test_in_deployment_the_node_decides_its_role():
    settings = resolved(engine="deployment", superlink="127.0.0.1:8000", attack="pixel_trigger")
    assert role_of(settings, 19, {}).name == "benign"
    assert role_of(settings, 0, {"role": "malicious"}).name == "backdoor"
    assert role_of(settings, 0, {"role": "malicious", "attack": "sign_flip"}).name == "poisoning"
    with pytest.raises(BadSettings, match="benign or malicious"):
        role_of(settings, 0, {"role": "evil"})


def test_on_nodes_that_outlive_a_run_attackers_tell_runs_apart(tmp_path):
    def folder(run_id, **values):
        settings = resolved(engine="deployment", superlink="h:1", attack="adaptive", **values)
        return channel_of(settings, {"channel": str(tmp_path)}, run_id).folder

    first = folder(1, output="runs/first")
    assert first.parent == tmp_path
    assert first == folder(2, output="runs/first", resume=True)
    assert len({first, folder(1, output="runs/second"), folder(1), folder(2)}) == 4


def test_attackers_that_remember_need_a_folder_before_the_run_starts(tmp_path):
    check(resolved(attack="adaptive", output=str(tmp_path)))
    with pytest.raises(BadSettings, match="need --output"):  # Flower's own command gives none by itself
        check(resolved(attack="adaptive"))


def test_a_node_says_where_its_own_data_and_device_are():
    from flwr.app import Context, RecordDict

    from thornbed.flower_apps import client_app

    run_config = {**settings_from({"data-dir": "/of/the/run"}).to_run_config()}
    node_config = {"partition-id": 1, "data-dir": "/of/the/node", "device": "cpu"}
    context = Context(run_id=1, node_id=2, node_config=node_config, state=RecordDict(), run_config=run_config)
    settings = client_app._settings(context)
    assert (settings.data_dir, settings.device) == ("/of/the/node", "cpu")
    context.node_config = {"partition-id": 1}
    assert client_app._settings(context).data_dir == "/of/the/run"


def test_a_strategy_class_can_be_named_as_well_as_a_rule():
    assert HorizontalRun(resolved(strategy="invariant_aggregation(tau=0.5)")).new_strategy().rule.keywords["tau"] == 0.5
    assert HorizontalRun(resolved(strategy="invariant(tau=0.5)")).new_strategy().rule.keywords["tau"] == 0.5


def test_a_sweep_does_not_load_data_twice():
    runs.load_task.cache_clear()
    runs.load_task("digits", "")
    runs.load_task("digits", "")
    assert runs.load_task.cache_info().hits == 1


@pytest.mark.parametrize("engine", ["simulation", "deployment"])
def test_a_simulation_is_given_time_to_start_and_machines_are_not_waited_for_long(engine):
    own, asked = (
        runs.cohort(resolved(num_clients=4, min_replies=2, engine=engine, superlink="h:1", node_timeout=timeout))
        for timeout in ("auto", 7)
    )
    assert (own.wait_seconds, own.min_clients) == {"simulation": (600, 4), "deployment": (60, 2)}[engine]
    assert asked.wait_seconds == 7
