"""Rows of the same images, as inversions left them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from tests.experiments.figures.conftest import settings_of
from thornbed.experiments.figures.inversion_gallery import InversionGallery
from thornbed.experiments.runs.finished import FinishedRun
from thornbed.experiments.sweeps.drawing import write_drawing
from thornbed.flower_apps.records.folder import Folder
from thornbed.flower_apps.records.image_sheet import LINE, MARGIN, scale_of
from thornbed.flower_apps.settings import RunFailed

FIGURE = InversionGallery(num_images=3)


@pytest.fixture
def made(tmp_path, inverted):
    def make(name, originals, seed=0, **record):
        parts = [
            {"images": part.clone().fill_(0.5), "originals": part, "psnr": [float(len(part))] * len(part), **record}
            for part in originals.split(2)
        ]
        inverted(tmp_path / f"{name}{seed}", *parts)
        settings = settings_of(curious="agic(steps=5)", attack="none", seed=seed)
        return FinishedRun(name=name, settings=settings, metrics={}, folder=Folder(tmp_path / f"{name}{seed}"))

    return make


def test_the_first_images_of_the_first_seed_are_shown(made):
    images = torch.rand(5, 3, 8, 8)
    drawing = FIGURE.draw([made("one", images), made("other", images), made("one", torch.rand(5, 3, 8, 8), seed=1)])
    table = drawing.tables[""]
    assert table["cell"].tolist() == ["one"] * 3 + ["other"] * 3
    assert table["psnr"].tolist() == [2.0, 2.0, 2.0] * 2
    words = [text.get_text() for text in drawing.picture.texts]
    assert words[:3] == ["original", "one", "2.00 dB"]
    assert len(drawing.picture.images) == 9


def test_what_is_written_has_every_image_at_its_place(made, tmp_path):
    images = torch.rand(2, 3, 8, 8)
    drawing = FIGURE.draw([made("one", images)])
    picture, _ = write_drawing(drawing, tmp_path, "gallery")
    with Image.open(picture) as opened:
        pixels = np.asarray(opened.convert("RGB"))
    scale = scale_of(8, 8)
    top = MARGIN + LINE + 4
    block = pixels[top : top + 8 * scale, MARGIN : MARGIN + 8 * scale]
    wanted = (255 * images[0]).round().to(torch.uint8).permute(1, 2, 0).numpy()
    assert np.array_equal(block[scale // 2 :: scale, scale // 2 :: scale], wanted)


def test_other_images_or_none_are_refused(made):
    with pytest.raises(RunFailed, match="the cells have different originals"):
        FIGURE.draw([made("one", torch.rand(4, 1, 8, 8)), made("other", torch.rand(4, 1, 8, 8))])
    with pytest.raises(RunFailed, match="cannot be shown: nobody knows what round 1, client 0 really was"):
        FIGURE.draw([made("blind", torch.rand(4, 1, 8, 8), psnr=None)])
    with pytest.raises(ValueError, match="needs an inversion in every cell"):
        FIGURE.check([settings_of()])
    with pytest.raises(ValueError, match="num_images = 0"):
        InversionGallery(num_images=0)
