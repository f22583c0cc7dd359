"""The histogram has every element once, and the mimic's row is what numpy makes of the two updates."""

from __future__ import annotations

import numpy as np
import pytest

from tests.experiments.figures.conftest import settings_of
from thornbed.experiments.figures.update_histogram import UpdateHistogram

KEPT = 30


@pytest.fixture(scope="module")
def drawing(honest):
    return UpdateHistogram(num_kept=KEPT, num_bins=11, threshold=0.02).draw([honest])


def test_every_element_is_in_one_bin(honest, drawing):
    bins, elements = drawing.tables[""], drawing.tables["elements"].set_index("update")
    for name, client in (("malicious", 3), ("benign", 0)):
        values = honest.update(client).numpy()
        assert bins[name].sum() == len(values) == elements.loc[name, "elements"]
        for low, high, count in bins[["from", "to", name]].to_numpy()[:-1]:
            assert ((values >= low) & (values < high)).sum() == pytest.approx(count, abs=1)  # a value on an edge
        assert elements.loc[name, "above_threshold"] == sum(abs(float(value)) > 0.02 for value in values)
        assert elements.loc[name, "norm"] == pytest.approx(float(np.sqrt((values.astype(float) ** 2).sum())))
    assert len(bins) == 11
    assert (bins["to"][:-1].to_numpy() == bins["from"][1:].to_numpy()).all()


def test_mimicry_is_what_it_says(honest, drawing):
    mimicry = drawing.tables["mimicry"].set_index("kept")
    malicious, benign = (honest.update(client) for client in (3, 0))
    order = np.argsort(-np.abs(malicious.numpy()), kind="stable")
    sent = benign.clone()
    sent[order[:KEPT].copy()] = malicious[order[:KEPT].copy()]
    one, other = sent.numpy().astype(float), benign.numpy().astype(float)
    cosine = (one * other).sum() / np.sqrt((one**2).sum() * (other**2).sum())
    assert mimicry.loc[KEPT, "cosine"] == pytest.approx(cosine)
    before, gained, after = (honest.loss(honest.backdoor, step) for step in (None, malicious, sent))
    assert mimicry.loc[KEPT, "progress"] == pytest.approx((before - after) / (before - gained))
    assert mimicry.index[-1] == len(malicious)
    assert mimicry["progress"].iloc[-1] == 1.0
    assert list(mimicry.index) == sorted(mimicry.index)
    assert mimicry["cosine"].iloc[-1] < mimicry["cosine"].iloc[0]


def test_a_malicious_update_that_gains_nothing_has_no_progress(honest):
    rows = UpdateHistogram()._mimicry(honest, honest.update(3) * 0, honest.update(0))
    assert all(np.isnan(row["progress"]) for row in rows)


def test_the_picture_names_its_sides(drawing):
    left, right = drawing.picture.axes
    assert "value of the element" in left.get_xlabel()
    assert "elements in the bin" in left.get_ylabel()
    assert "elements that stay malicious" in right.get_xlabel()
    words = [text.get_text() for text in drawing.picture.legends[0].get_texts()]
    above = drawing.tables["elements"]["above_threshold"].tolist()
    assert f"malicious {above[0]}, benign {above[1]}" in words[-2]
    assert words[-1].startswith("30 kept: cosine ")


@pytest.mark.parametrize("options", [{"num_kept": -1}, {"num_bins": 0}, {"threshold": -0.5}])
def test_options_out_of_range_are_refused(options):
    [(name, value)] = options.items()
    with pytest.raises(ValueError, match=rf"update_histogram needs .*{name}.* {value}$"):
        UpdateHistogram(**options)


def test_it_draws_one_attacked_cell():
    with pytest.raises(ValueError, match="draws one cell: cells = 2"):
        UpdateHistogram().check([settings_of(), settings_of(seed=1)])
    with pytest.raises(ValueError, match="attack = none"):
        UpdateHistogram().check([settings_of(attack="none")])
    with pytest.raises(ValueError, match="needs an honest client"):
        UpdateHistogram().check([settings_of(num_malicious=4)])
    UpdateHistogram().check([settings_of()])
