"""A curious server in whole runs, and updates that were recorded: what it finds, and that it changes nothing."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from thornbed.protocol.recordings import load_update, recordings_in, save_update

RUN = ["run", "--task", "digits", "--num-clients", 4, "--partition", "stratified", "--rounds", 2, "--batch-size", 1]
SMALL = [*RUN, "--model", "cnn(width=2)", "--local-epochs", 0.001, "--learning-rate", 0.001]


def told(folder):
    return json.loads((folder / "inversions.json").read_text())


def test_a_curious_server_changes_nothing_and_leaves_what_it_found(thornbed, tmp_path):
    assert thornbed(*SMALL, "--output", tmp_path / "quiet").code == 0
    attack = "agic(steps=12, beta=5.0, snapshots=3, labels='idlg')"
    typed = thornbed(*SMALL, "--curious", attack, "--curious-every", 1, "--output", tmp_path / "read")
    assert typed.code == 0, typed.err
    assert "the server is curious: it keeps to the protocol and inverts what clients send with agic(" in typed.out
    assert "inverting updates" in typed.err
    models = [load_file(tmp_path / name / "model.safetensors") for name in ("quiet", "read")]
    assert models[0].keys() == models[1].keys()
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])
    metrics = json.loads((tmp_path / "read" / "summary.json").read_text())["metrics"]
    assert metrics["psnr"] > 5
    assert metrics["seconds_per_step"] > 0
    assert metrics["label_accuracy"] == 1
    found = told(tmp_path / "read")
    assert [(each["round"], each["client"]) for each in found["inversions"]] == [(1, 0), (2, 0)]
    assert all(each["labels"] == each["true_labels"] for each in found["inversions"])
    assert found["peak_memory_mib"] is None or found["peak_memory_mib"] > 10
    images = load_file(tmp_path / "read" / "inversions.safetensors")
    assert images["1/images"].shape == images["1/originals"].shape == (1, 1, 8, 8)
    assert images["1/snapshots"].shape == (3, 1, 1, 8, 8)
    assert not (tmp_path / "read" / "recordings").exists()  # large, and asked for by nobody


def test_originals_are_what_the_client_trained_on(thornbed, tmp_path):
    """The update of one plain step is the gradient at the recorded originals, to rounding."""
    from thornbed.attacks.inversion import gradient_of_update
    from thornbed.protocol.recordings import load_originals
    from thornbed.tasks.digits import digits
    from thornbed.tasks.models import normalised
    from thornbed.tasks.models.cnn import cnn

    flags = [*RUN, "--model", "cnn(width=2)", "--batch-size", 3, "--local-epochs", 0.001, "--learning-rate", 0.01]
    order = ["--continue-epochs", "--curious-every", 1, "--curious-clients", "1,3"]
    assert thornbed(*flags, *order, "--record", tmp_path / "rec", "--output", tmp_path / "run").code == 0
    paths = recordings_in(tmp_path / "rec")
    assert [path.stem for path in paths] == [f"round-000{r}-client-000{c}" for r in (1, 2) for c in (1, 3)]
    task = digits(None)
    network = normalised(cnn((1, 8, 8), 10, width=2), task.mean, task.std)
    seen = []
    for path in paths:
        recording = load_update(path)
        assert (recording.facts.num_samples, recording.facts.local_steps, recording.facts.batch_size) == (3, 1, None)
        images, labels = load_originals(path, recording.facts)
        seen.append({image.numpy().tobytes() for image in images})
        network.load_state_dict(dict(recording.sent))
        loss = torch.nn.functional.cross_entropy(network(images), labels)
        want = dict(
            zip(dict(network.named_parameters()), torch.autograd.grad(loss, list(network.parameters())), strict=True)
        )
        sent, received = ({name: of[name] for name in want} for of in (recording.sent, recording.received))
        for name, gradient in gradient_of_update(sent, received, learning_rate=0.01).items():
            assert torch.allclose(gradient, want[name], atol=1e-4), name
    assert not seen[0] & seen[2]  # the second round of an epoch takes other samples


def test_rounds_of_a_part_of_an_epoch_are_read_with_the_samples_that_they_take(thornbed, tmp_path):
    """Ten samples in steps of four: two of these a round, so that the second round goes on into the next epoch."""
    flags = [
        "--task",
        "digits(num_train=40)",
        "--num-clients",
        4,
        "--partition",
        "stratified",
        "--model",
        "cnn(width=2)",
    ]
    course = ["--rounds", 4, "--batch-size", 4, "--local-epochs", 0.4, "--continue-epochs", "--optimizer", "sgd"]
    attack = ["--curious", "agic(steps=2, labels='known')", "--curious-every", 1, "--record", tmp_path / "rec"]
    typed = thornbed("run", *flags, *course, *attack, "--output", tmp_path / "run")
    assert typed.code == 0, typed.err
    facts = [load_update(path).facts for path in recordings_in(tmp_path / "rec")]
    assert [each.num_samples for each in facts] == [8, 6, 6, 8]
    assert [each.epoch for each in facts] == [1, 1, 2, 3]
    assert all(
        each["psnr"] and len(each["psnr"]) == each["num_samples"] for each in told(tmp_path / "run")["inversions"]
    )


def test_a_recording_is_inverted_later_without_any_run(thornbed, tmp_path):
    flags = ["--record", tmp_path / "rec", "--curious-clients", "all", "--output", tmp_path / "run"]
    assert thornbed(*SMALL, *flags).code == 0
    assert len(recordings_in(tmp_path / "rec")) == 4
    typed = thornbed("invert", tmp_path / "rec", "--with", "dlg_adam(steps=3)", "--output", tmp_path / "out")
    assert typed.code == 0, typed.err
    assert "Pictures and numbers:" in typed.out
    assert len(told(tmp_path / "out")["inversions"]) == 4
    assert "it holds inversions, and inversions.png shows them" in thornbed("report", tmp_path / "out").sentence
    for path in (tmp_path / "rec").glob("*.originals.safetensors"):
        path.unlink()
    typed = thornbed("invert", tmp_path / "rec", "--with", "dlg_adam(steps=3)", "--output", tmp_path / "blind")
    assert "Beware: what is behind 4 of 4 updates is not known here, so nothing is compared." in typed.out
    assert told(tmp_path / "blind")["metrics"]["psnr"] is None
    typed = thornbed("invert", tmp_path / "rec", "--with", "dlg_adam(steps=3, labels='known')")
    assert typed.code == 2
    assert "needs observations that have their labels" in typed.sentence


def test_one_sample_through_one_layer_is_found_exactly(thornbed, tmp_path):
    """The user's own model and data: a single linear layer gives its input away."""
    x, layer = torch.rand(1, 1, 8, 8), torch.nn.Linear(64, 10)
    loss = torch.nn.functional.cross_entropy(layer(x.flatten(1)), torch.tensor([7]))
    weight, bias = torch.autograd.grad(loss, list(layer.parameters()))
    sent = {"layers.0.weight": layer.weight.detach(), "layers.0.bias": layer.bias.detach()}
    received = {
        "layers.0.weight": sent["layers.0.weight"] - 0.5 * weight,
        "layers.0.bias": sent["layers.0.bias"] - 0.5 * bias,
    }
    from thornbed.tasks.models.mlp import mlp

    names = list(mlp((1, 8, 8), 10, hidden=()).state_dict())
    sent, received = (dict(zip(names, each.values(), strict=True)) for each in (sent, received))
    facts = {"model": "mlp(hidden=())", "sample_shape": (1, 8, 8), "num_classes": 10, "num_samples": 1}
    save_update(tmp_path / "mine.safetensors", sent, received, learning_rate=0.5, **facts)
    attack = "dlg_adam(steps=800, step_size=0.05, labels='idlg', start='zero', decay='cosine')"
    typed = thornbed("invert", tmp_path / "mine.safetensors", "--with", attack, "--output", tmp_path / "out")
    assert typed.code == 0, typed.err
    assert told(tmp_path / "out")["inversions"][0]["labels"] == [7]
    found = load_file(tmp_path / "out" / "inversions.safetensors")["0/images"]
    assert torch.allclose(found, x, atol=0.02)


def test_an_inversion_that_fails_keeps_the_training_and_can_be_repeated(thornbed, tmp_path, monkeypatch):
    """What was recorded is damaged before the last round is over: nothing can foresee that."""
    from thornbed.flower_apps import federation

    def damaged(paths, *words, **more):
        content = paths[0].read_bytes()
        paths[0].write_bytes(content[:-8])
        try:
            return invert(paths, *words, **more)
        finally:
            paths[0].write_bytes(content)

    invert = federation.invert
    flags = [*RUN, "--model", "cnn(width=2)", "--batch-size", 12, "--local-epochs", 0.01, "--output", tmp_path / "run"]
    with monkeypatch.context() as patched:
        patched.setattr(federation, "invert", damaged)
        typed = thornbed(*flags, "--curious", "dlg_adam(steps=2, labels='known')")
    assert typed.code == 1
    assert "the training is done and kept" in typed.sentence
    assert "round-0001-client-0000.safetensors is no recording, or damaged" in typed.sentence
    assert (tmp_path / "run" / "model.safetensors").exists()
    again = "dlg_adam(steps=2, labels='counts')"
    typed = thornbed("run", "--resume", "--output", tmp_path / "run", "--curious", again)
    assert typed.code == 0, typed.err
    assert told(tmp_path / "run")["inversions"][0]["num_samples"] == 12
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["settings"]["curious"] == again


def test_a_complete_run_goes_on_with_what_its_first_round_gave_away(thornbed, tmp_path):
    first = ["--rounds", 1, "--curious", "agic(steps=2, labels='idlg')", "--output", tmp_path / "run"]
    assert thornbed(*SMALL, *first).code == 0
    psnr = json.loads((tmp_path / "run" / "summary.json").read_text())["metrics"]["psnr"]
    typed = thornbed("run", "--resume", "--rounds", 2, "--output", tmp_path / "run")
    assert typed.code == 0, typed.err
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["rounds"] == 2
    assert summary["metrics"]["psnr"] == psnr


def test_a_complete_run_has_no_numbers_of_another_inversion(thornbed, tmp_path):
    run = [*SMALL, "--curious", "agic(steps=2, labels='idlg')", "--output", tmp_path / "run"]
    assert thornbed(*run).code == 0
    typed = thornbed("run", "--resume", "--curious", "agic(steps=3, labels='idlg')", "--output", tmp_path / "run")
    assert typed.code == 2
    assert "whose run is complete; to try several on the same updates, keep them with --record" in " ".join(
        typed.err.split()
    )
    assert thornbed("run", "--resume", "--output", tmp_path / "run").code == 0


def test_an_update_that_is_not_finite_ends_its_own_inversion(thornbed, tmp_path):
    flags = ["--record", tmp_path / "rec", "--curious-clients", "0,1", "--output", tmp_path / "run"]
    assert thornbed(*SMALL, *flags).code == 0
    path = recordings_in(tmp_path / "rec")[0]
    recording = load_update(path)
    name = next(iter(recording.received))
    broken = {**recording.received, name: torch.full_like(recording.received[name], torch.nan)}
    save_update(path, recording.sent, broken, **recording.facts.model_dump())
    attack = "inverting_gradients(steps=3, labels='idlg')"
    typed = thornbed("invert", tmp_path / "rec", "--with", attack, "--output", tmp_path / "out")
    assert typed.code == 0, typed.err
    assert (
        "Beware: the inversion of round-0001-client-0000.safetensors ended early: the update is not finite."
        in typed.out
    )
    failures = [each["failure"] for each in told(tmp_path / "out")["inversions"]]
    assert failures[0] is not None
    assert failures[1] is None


@pytest.fixture(scope="module")
def recorded(tmp_path_factory, request):
    """A recording of a small network, with no run behind it."""
    from thornbed.tasks.models.cnn import cnn

    folder = tmp_path_factory.mktemp("recorded")
    state = cnn((1, 8, 8), 10, width=2).state_dict()
    facts = {"model": "cnn(width=2)", "sample_shape": (1, 8, 8), "num_classes": 10, "num_samples": 1}
    save_update(folder / "one.safetensors", state, {k: v + 0.01 for k, v in state.items()}, learning_rate=0.1, **facts)
    return folder


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--with", "agi"], "there is no inversion called agi; did you mean agic?"),
        (["--with", "agic(steps=0)"], "agic needs steps >= 1: steps = 0"),
        (["--with", "agic + dlg_adam"], "takes one inversion, not"),
        (["--with", "agic", "--model", "cnn(width=3)"], "is no recording of cnn(width=3): "),
        (["--with", "agic", "--model", "mlp"], "is no recording of mlp: it lacks "),
        (["--with", "agic", "--model", "resnet99"], "there is no model called resnet99"),
        (["--with", "agic", "--device", "cuda:77"], "--device cuda:77 cannot be used here"),
        ([], "Missing option '--with'"),
    ],
)
def test_what_cannot_be_inverted_is_refused(thornbed, recorded, tmp_path, words, sentence):
    typed = thornbed("invert", recorded, *words, "--output", tmp_path / "out")
    assert typed.code == 2
    assert sentence in typed.sentence
    assert "Traceback" not in typed.err


def test_files_that_are_no_recordings_are_refused(thornbed, recorded, tmp_path):
    other = tmp_path / "other.safetensors"
    save_file({"w": torch.zeros(2)}, other)
    for words, sentence in (
        ([other], "other.safetensors is no recording"),
        ([tmp_path / "nowhere"], "nowhere is not there; name a recording, or a folder of them"),
        ([tmp_path / "empty"], "holds no recordings; thornbed run --record DIR makes some"),
    ):
        (tmp_path / "empty").mkdir(exist_ok=True)
        typed = thornbed("invert", *words, "--with", "agic", "--output", tmp_path / "out")
        assert typed.code == 2
        assert sentence in typed.sentence


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--curious", "agic", "--task", "phishing"], "--curious and --record are for images: a sample of --task"),
        (["--curious", "agic(step=3)"], "agic has no option step; it takes"),
        (["--curious-every", "2"], "--curious-every has no --curious and no --record"),
        (
            ["--curious", "agic", "--curious-clients", "20"],
            "--curious-clients takes numbers of clients, 0 to 19, not '20'",
        ),
        (["--curious", "agic", "--curious-clients", "some"], "--curious-clients takes client numbers joined by commas"),
        (["--curious", "agic", "--curious-every", "0"], "--curious-every takes a whole number (at least 1), not 0"),
        (
            ["--curious", "agic", "--curious-clients", "0", "--clients-per-round", "1", "--seed", "1"],
            "--curious-clients 0 take part in none of the rounds that are read (1 of 30); in the first there are ",
        ),
    ],
)
def test_a_curious_server_that_could_see_nothing_is_refused(thornbed, tmp_path, words, sentence):
    typed = thornbed("run", *words, "--output", tmp_path / "out")
    assert typed.code == 2
    assert sentence in typed.sentence


def test_recordings_of_another_run_are_not_mixed_in(thornbed, recorded, tmp_path):
    typed = thornbed(*SMALL, "--record", recorded, "--output", tmp_path / "out")
    assert typed.code == 2
    assert "holds recordings already; name another folder" in typed.sentence
    assert not (tmp_path / "out").exists()


def test_the_recordings_of_a_run_stay_in_one_folder(thornbed, tmp_path):
    flags = ["--curious-every", 1, "--record", tmp_path / "rec", "--output", tmp_path / "run"]
    assert thornbed(*SMALL, *flags).code == 0
    again = ["run", "--resume", "--rounds", 3, "--output", tmp_path / "run"]
    typed = thornbed(*again, "--record", tmp_path / "other")
    assert typed.code == 2
    assert f"--record is '{tmp_path / 'other'}' and was '{tmp_path / 'rec'}' in " in typed.sentence
    assert thornbed(*again).code == 0
    assert [load_update(path).facts.round for path in recordings_in(tmp_path / "rec")] == [1, 2, 3]


def test_a_complete_run_that_goes_on_keeps_what_its_earlier_rounds_gave_away(thornbed, tmp_path):
    flags = ["--curious", "agic(steps=2, labels='idlg', snapshots=2)", "--curious-every", 1]
    assert thornbed(*SMALL, *flags, "--output", tmp_path / "run").code == 0
    files = ("inversions.json", "inversions.safetensors", "inversions.png", "inversion_steps.png")
    before = {name: (tmp_path / "run" / name).read_bytes() for name in files}
    typed = thornbed("run", "--resume", "--rounds", 3, "--output", tmp_path / "run")
    assert typed.code == 0, typed.err
    sentence = "what earlier rounds gave away is in inversions-until-round-2 and is not counted here: --record would"
    assert f"Beware: {sentence}" in typed.out
    assert [each["round"] for each in told(tmp_path / "run")["inversions"]] == [3]
    aside = tmp_path / "run" / "inversions-until-round-2"
    assert {path.name: path.read_bytes() for path in aside.iterdir()} == before
    assert thornbed("report", tmp_path / "run").code == 0
    assert sentence in (tmp_path / "run" / "report.html").read_text()


def test_inversions_that_are_made_again_take_the_place_of_the_earlier_ones(thornbed, tmp_path):
    flags = ["--curious", "agic(steps=2, labels='idlg')", "--curious-every", 1, "--record", tmp_path / "rec"]
    assert thornbed(*SMALL, *flags, "--output", tmp_path / "run").code == 0
    typed = thornbed("run", "--resume", "--rounds", 3, "--output", tmp_path / "run")
    assert typed.code == 0, typed.err
    assert [each["round"] for each in told(tmp_path / "run")["inversions"]] == [1, 2, 3]
    assert not list((tmp_path / "run").glob("inversions-until-*"))
    assert "earlier rounds" not in typed.out
