"""The tour, made short: every stop, its report, and what it refuses."""

from thornbed.experiments import tour


def test_the_tour_runs_and_reports(thornbed, tmp_path, monkeypatch):
    monkeypatch.setattr(tour, "COMMON", {**tour.COMMON, "rounds": 2, "num_clients": 5, "model": "mlp(hidden=(8,))"})
    stops = {name: dict(stop) for name, stop in tour.STOPS.items()}
    for name in ("2-fedavg-backdoor", *tour.SAME, "6-multitask", "7-multitask-poisoned"):
        stops[name]["num_malicious"] = 1
    stops["5-curious-server"] |= {
        "curious": "dlg_adam(steps=2, labels='idlg')",
        "curious_clients": "0",
        "local_epochs": 0.001,
    }
    for name in ("6-multitask", "7-multitask-poisoned"):
        stops[name] |= {"rounds": 2, "attack": "random_direct", "model": "auto"}
    attack = "cooperative_backdoor(size=(3, 3), num_known=120, epochs=2, steps=2, confidence=0.1)"
    stops["8-vertical-backdoor"] |= {
        "rounds": 1,
        "attack": attack,
        "model": "column_layers(hidden=(8,))",
        "num_malicious": 2,
    }
    for name in ("9-liars", "10-liars-copur"):
        stops[name] |= {"local_epochs": 2.0, "model": "column_layers(hidden=())"}
    monkeypatch.setattr(tour, "STOPS", stops)
    output = tmp_path / "tour"
    typed = thornbed("tour", "--output", output)
    assert typed.code == 0, typed.err
    assert "equal in every figure" in typed.out
    page = (output / "report.html").read_text()
    words = ("nobody", "plant", "invariant", "the same in", "rebuilds", "poison in", "half of", "two of", "and CoPur")
    said = [typed.out.index(word) for word in words]
    assert said == sorted(said)  # in the order of the story
    places = [page.index(name) for name in stops]
    assert places == sorted(places)
    assert "data:image/png;base64" in page
    assert thornbed("tour", "--output", tmp_path).code == 2  # a folder with something else in it
    (output / "notes.txt").write_text("mine")
    monkeypatch.setattr(tour, "_take", lambda *_: None)
    assert thornbed("tour", "--output", output).code == 0  # once more in the same place: its own runs go, nothing else
    assert (output / "notes.txt").exists()
    assert not any((output / name).exists() for name in stops)


def test_a_difference_between_the_engines_is_found(tmp_path):
    from thornbed.flower_apps.records.folder import Folder

    lines = [{"round": 0, "accuracy": 0.5, "loss": 1.0}, {"round": 1, "accuracy": 0.75, "loss": 1.0}]
    for name, change in (("one", 0.0), ("same", 1e-7), ("other", 1e-3)):
        (tmp_path / name).mkdir()
        folder = Folder(tmp_path / name)
        folder.append(lines[0])
        folder.append({**lines[1], "accuracy": 0.75 + change})
    one, same, other = (Folder(tmp_path / name) for name in ("one", "same", "other"))
    assert not tour._differences(one, same)
    assert tour._differences(one, other) == "accuracy of round 1 (0.75 and 0.751)"
    one.append({"round": 2, "accuracy": 0.75, "loss": 1.0})
    assert tour._differences(one, same) == "the number of rounds (3 and 2 lines)"


def test_a_folder_that_is_no_tour_is_left_alone(thornbed, tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    typed = thornbed("tour", "--output", tmp_path)
    assert typed.code == 2
    assert "holds something that is not a tour" in typed.sentence
    assert (tmp_path / "mine.txt").read_text() == "precious"
