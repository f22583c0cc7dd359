"""The landscape at 0 and at 1 is what evaluation says of two models; everywhere it is what the seeds make it."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from tests.experiments.figures.conftest import settings_of
from thornbed.experiments.figures.loss_landscape import LossLandscape
from thornbed.flower_apps.schemes.horizontal.run import HorizontalRun

FIGURE = LossLandscape(points_per_side=2, num_random=2, num_samples=10_000)


@pytest.fixture(scope="module")
def drawing(honest):
    return FIGURE.draw([honest])


def loss(run, samples, step):
    """Cross-entropy of the final model moved by a step, without the figure's own means."""
    model = HorizontalRun(run.settings).new_model()
    state = load_file(run.folder.path / "model.safetensors")
    start = 0
    for tensor in (state[name] for name in model.state_dict()):
        tensor += step[start : start + tensor.numel()].reshape(tensor.shape)
        start += tensor.numel()
    model.load_state_dict(state)
    with torch.inference_mode():
        return float(F.cross_entropy(model.eval()(samples.x), samples.y))


def test_values_are_those_of_the_moved_model(honest, drawing):
    table = drawing.tables[""].set_index(["data", "direction", "draw", "distance"])["loss"]
    update = honest.update(3)
    for data, samples in {"honest": honest.honest_data(), "backdoor": honest.backdoor}.items():
        for distance in (-1.0, 0.0, 0.5, 1.0):
            expected = loss(honest, samples, distance * update)
            assert table[data, "malicious", 0, distance] == pytest.approx(expected, rel=1e-5)
        here = {table[data, way, draw, 0.0] for way, draw in (("malicious", 0), ("random", 0), ("random", 1))}
        assert len(here) == 1
    assert table["backdoor", "malicious", 0, 1.0] < table["backdoor", "malicious", 0, 0.0]
    assert table["honest", "random", 0, 1.0] != table["honest", "random", 1, 1.0]


def test_rows_distances_and_norms(honest, drawing):
    table = drawing.tables[""]
    assert len(table) == 2 * (1 + 2) * 5
    assert sorted(set(table["distance"])) == [-1.0, -0.5, 0.0, 0.5, 1.0]
    norm = float(honest.update(3).double().norm())
    assert table["gradient_norm"].tolist() == [pytest.approx(norm)] * len(table)
    for draw in (0, 1):
        assert float(FIGURE._direction(honest, draw, norm).double().norm()) == pytest.approx(norm, rel=1e-5)


def test_the_same_runs_give_the_same_numbers(honest, drawing):
    pd.testing.assert_frame_equal(FIGURE.draw([honest]).tables[""], drawing.tables[""])
    fewer = LossLandscape(points_per_side=1, num_random=1, num_samples=7)
    assert len(fewer._honest(honest)) == 7
    assert torch.equal(fewer._honest(honest).x, fewer._honest(honest).x)


def test_the_picture_names_its_sides(drawing):
    panels = drawing.picture.axes
    assert [axes.get_title(loc="left") for axes in panels] == [
        "Honest clients' data, along the malicious gradient",
        "Honest clients' data, along random directions",
        "Attacked test samples, along the malicious gradient",
        "Attacked test samples, along random directions",
    ]
    assert all("cross-entropy (nats" in axes.get_ylabel() for axes in panels[::2])
    assert all("norms of the malicious gradient" in axes.get_xlabel() for axes in panels[2:])
    line = panels[0].lines[0]
    table = drawing.tables[""].query("data == 'honest' and direction == 'malicious'")
    assert line.get_ydata().tolist() == table["loss"].tolist()


@pytest.mark.parametrize(
    "options", [{"reach": 0.0}, {"reach": float("inf")}, {"points_per_side": 0}, {"num_random": 0}, {"num_samples": 0}]
)
def test_options_out_of_range_are_refused(options):
    [(name, value)] = options.items()
    with pytest.raises(ValueError, match=rf"loss_landscape needs .*{name}.* {value}$"):
        LossLandscape(**options)


def test_cells_without_a_backdoor_are_refused():
    for attack in ("none", "sign_flip"):
        with pytest.raises(ValueError, match=f"needs an attack on data in every cell: attack = {attack}"):
            LossLandscape().check([settings_of(), settings_of(attack=attack)])
