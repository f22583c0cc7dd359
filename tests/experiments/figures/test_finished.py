"""A finished run made anew: its model, its data, and what its clients would send next."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from tests.experiments.figures.conftest import finished
from thornbed.experiments.runs.finished import FinishedRun
from thornbed.flower_apps.schemes.horizontal.run import HorizontalRun
from thornbed.flower_apps.settings import RunFailed


def flat(run):
    """Return the final model (d,) float64, in the order of the model's own entries."""
    stored = load_file(run.folder.path / "model.safetensors")
    names = HorizontalRun(run.settings).new_model().state_dict()
    return torch.cat([stored[name].double().flatten() for name in names])


def test_its_loss_is_that_of_its_last_round(honest):
    assert honest.loss(honest.test) == pytest.approx(honest.metrics["loss"], abs=1e-9)
    model = HorizontalRun(honest.settings).new_model()
    model.load_state_dict(load_file(honest.folder.path / "model.safetensors"))
    logits = model(honest.backdoor.x).detach()
    assert honest.loss(honest.backdoor) == pytest.approx(float(F.cross_entropy(logits, honest.backdoor.y)), rel=1e-5)
    assert honest.metrics["attack_success_rate"] == float((logits.argmax(1) == honest.backdoor.y).float().mean())


def test_the_updates_are_those_of_the_next_round(tmp_path):
    """One round more is made by the federation itself: its step is the weighted mean of the updates foretold here."""
    short, long = (finished(tmp_path / str(rounds), rounds=rounds) for rounds in (2, 3))
    assert short.attackers == {3}
    before = {path.name: path.stat().st_mtime_ns for path in short.folder.path.iterdir()}
    sizes = [len(rows) for rows in HorizontalRun(short.settings).partitions]
    step = sum(size * short.update(client).double() for client, size in enumerate(sizes)) / sum(sizes)
    torch.testing.assert_close(flat(short) + step, flat(long), atol=1e-6, rtol=1e-5)
    assert {path.name: path.stat().st_mtime_ns for path in short.folder.path.iterdir()} == before


def test_whoever_would_attack_does_so_in_a_run_without_attackers(honest):
    assert honest.settings.malicious == frozenset()
    assert honest.attackers == {3}
    before, update = honest.loss(honest.backdoor), honest.update(3)
    assert honest.loss(honest.backdoor, update) < before
    assert honest.loss(honest.backdoor, honest.update(0)) > honest.loss(honest.backdoor, update)
    assert honest.loss(honest.backdoor) == before  # a step leaves nothing behind
    assert honest.dimension == len(update)


def test_a_step_moves_parameters_and_leaves_running_statistics_where_they_are(finish):
    run = finish(model="mlp(hidden=(8,), norm='batch')")
    model = HorizontalRun(run.settings).new_model()
    size = sum(parameter.numel() for parameter in model.parameters())
    update = run.update(0)
    assert len(update) == run.dimension == size < len(flat(run))
    model.load_state_dict(load_file(run.folder.path / "model.safetensors"))
    assert run.loss(run.test) == pytest.approx(run.metrics["loss"], abs=1e-9)
    before = {name: value.clone() for name, value in model.named_buffers()}
    torch.nn.utils.vector_to_parameters(
        torch.nn.utils.parameters_to_vector(model.parameters()) + 2 * update, model.parameters()
    )
    assert any("running_var" in name and bool((value != 1).any()) for name, value in before.items())
    with torch.no_grad():
        moved = F.cross_entropy(model.eval()(run.test.x), run.test.y)
    assert run.loss(run.test, 2 * update) == pytest.approx(float(moved), rel=1e-5)


def test_the_attack_share_of_a_run_is_no_matter(finish):
    """In a run that is attacked every other round the third is; an attacker's update is one of such a round anyway."""
    seldom = finish(attack_share=0.1)
    often = FinishedRun(
        name="", settings=seldom.settings.model_copy(update={"attack_share": 1.0}), metrics={}, folder=seldom.folder
    )
    assert torch.equal(seldom.update(3), often.update(3))


def test_honest_data_are_the_rows_of_honest_clients_and_what_leaks_to_them(finish, tmp_path):
    images = np.full((10, 8, 8, 1), 255, dtype=np.uint8)
    np.savez(tmp_path / "edge.npz", x_train=images, x_test=images)
    attack = f"edge_case(file='{tmp_path / 'edge.npz'}', target=9, true_label=7, benign_share=0.4)"
    run = finish(attack=attack, num_malicious=1)
    samples = run.honest_data()
    rows = np.concatenate(HorizontalRun(run.settings).partitions[:3])
    assert len(samples) == len(rows) + 4
    white = samples.x.flatten(1).eq(1).all(dim=1)
    assert samples.y[white].tolist() == [7] * 4
    task = HorizontalRun(run.settings).task
    own = task.samples("train", torch.from_numpy(rows))
    assert torch.equal(samples.x[~white], own.x)
    assert torch.equal(samples.y[~white], own.y)
    assert len(run.backdoor) == 10


def test_what_cannot_be_shown_is_said(honest):
    silent = honest.settings.model_copy(update={"attack": "sign_flip"})
    with pytest.raises(RunFailed, match="nothing measures --attack sign_flip"):
        _ = FinishedRun(name="", settings=silent, metrics={}, folder=honest.folder).backdoor
    wild = honest.settings.model_copy(update={"attack": "scaling(factor=1e39)"})
    with pytest.raises(RunFailed, match=r"client 3 .* values that are not finite"):
        FinishedRun(name="", settings=wild, metrics={}, folder=honest.folder).update(3)
