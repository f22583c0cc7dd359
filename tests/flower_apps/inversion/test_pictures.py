"""Pictures of inversions: what is on them, pixel by pixel, how many of how many, and damage in one sentence."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from thornbed.attacks.inversion import Observation
from thornbed.attacks.inversion.agic import agic
from thornbed.clients.local_training import one_thread
from thornbed.flower_apps.inversion.pictures import _chosen, _Stored, write_inversion_pictures
from thornbed.flower_apps.inversion.records import StoredInversions, read_inversions
from thornbed.flower_apps.records.image_sheet import GAP, LINE, MARGIN, SIDE, scale_of
from thornbed.tasks.digits import digits
from thornbed.tasks.metrics.images import psnr


def color(*numbers, size=8):
    """Return images (n, 3, size, size), each of one colour that its number gives; not white, grey or black."""
    values = [(number + 1, 200, 100) for number in numbers]
    return (torch.tensor(values)[:, :, None, None] / 255).expand(-1, -1, size, size).clone()


def where(path, number):
    """Return the pixels of an image's colour: how many, their first row and their first column."""
    with Image.open(path) as image:
        found = (np.asarray(image.convert("RGB")) == (number + 1, 200, 100)).all(axis=-1)
    rows, columns = found.nonzero()
    return (len(rows), rows.min(), columns.min()) if len(rows) else (0, None, None)


def drawn(folder):
    return [path.name for path in write_inversion_pictures(folder)]


def test_originals_stand_above_their_reconstructions(tmp_path, inverted):
    inverted(tmp_path, {"images": color(10, 11, 12), "originals": color(0, 1, 2)}, {"images": color(13)})
    assert drawn(tmp_path) == ["inversions.png"]
    path = tmp_path / "inversions.png"
    tops = {where(path, number)[1] for number in range(3)}, {where(path, number)[1] for number in (10, 11, 12, 13)}
    assert all(len(rows) == 1 for rows in tops)
    assert tops[1].pop() - tops[0].pop() == SIDE + GAP // 2
    for column, numbers in enumerate([(0, 10), (1, 11), (2, 12), (13,)]):
        for number in numbers:
            count, _, left = where(path, number)
            assert (count, left) == (SIDE**2, MARGIN + column * (SIDE + GAP))


def test_without_originals_there_is_no_row_for_them(tmp_path, inverted):
    inverted(tmp_path / "a", {"images": color(0), "originals": color(1)})
    inverted(tmp_path / "b", {"images": color(0), "psnr": None, "ssim": None, "true_labels": None})
    heights = []
    for name in "ab":
        drawn(tmp_path / name)
        with Image.open(tmp_path / name / "inversions.png") as image:
            heights.append(image.height)
    assert heights[0] - heights[1] == SIDE + GAP // 2 + 4 + LINE  # nor one for PSNR


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (1, 28, 28), (2, 5, 9), (3, 224, 224), (3, 200, 100)])
def test_every_pixel_is_a_whole_multiple(tmp_path, inverted, shape):
    images = torch.rand(3, *shape, generator=torch.Generator().manual_seed(0))
    inverted(tmp_path, {"images": images, "originals": images.flip(0)})
    drawn(tmp_path)
    with Image.open(tmp_path / "inversions.png") as image:
        found = np.asarray(image.convert("RGB")).astype(int)
    scale = scale_of(*shape[1:])
    tall, wide = shape[1] * scale, max(shape[2] * scale, SIDE)
    bottom = len(found) - MARGIN - 4 - LINE
    for row, of in ((bottom - 2 * tall - GAP // 2, images.flip(0)), (bottom - tall, images)):
        for column, each in enumerate(of):
            left = MARGIN + column * (wide + GAP)
            expected = each if len(each) == 3 else each.mean(dim=0).expand(3, -1, -1)
            large = (expected.permute(1, 2, 0) * 255).round().numpy().repeat(scale, axis=0).repeat(scale, axis=1)
            assert np.array_equal(found[row : row + tall, left : left + shape[2] * scale], large)


@pytest.mark.parametrize(
    ("counts", "room", "taken"),
    [([5], 16, [5]), ([40], 16, [16]), ([10, 2, 10], 16, [7, 2, 7]), ([3, 3], 4, [2, 2]), ([1] * 5, 3, [1, 1, 1])],
)
def test_images_are_chosen_evenly(counts, room, taken):
    class Numbered(_Stored):
        def __init__(self, place, count):
            self.place, self.shape = place, (count, 1, 8, 8)

        def first(self, count):
            return self.place, count

    chosen = _chosen([Numbered(place, count) for place, count in enumerate(counts)], room)
    assert [count for _, count in chosen] == taken
    places = [place for place, _ in chosen]
    assert places == sorted(set(places))
    assert (places[0], places[-1]) == (0, len(counts) - 1)


def test_of_many_images_sixteen_are_shown_in_rows_of_eight(tmp_path, inverted):
    inverted(tmp_path, *({"images": color(number)} for number in range(31)))
    drawn(tmp_path)
    places = [where(tmp_path / "inversions.png", number) for number in range(0, 31, 2)]
    assert {count for count, _, _ in places} == {SIDE**2}
    assert [left for _, _, left in places] == [MARGIN + column * (SIDE + GAP) for column in range(8)] * 2
    assert len({top for _, top, _ in places}) == 2
    assert where(tmp_path / "inversions.png", 1)[0] == 0
    one = inverted(tmp_path / "one", {"images": color(*range(40))})
    drawn(one)
    assert [where(one / "inversions.png", number)[0] for number in (0, 15, 16, 39)] == [SIDE**2, SIDE**2, 0, 0]


def test_the_strip_goes_from_the_first_step_to_the_original(tmp_path, inverted):
    steps = torch.tensor([0, 10, 20])
    snapshots = torch.stack([color(*range(start, start + 6)) for start in (0, 10, 20)])
    pairs = {"images": color(*range(20, 26)), "originals": color(*range(30, 36))}
    folder = inverted(tmp_path, {**pairs, "snapshots": snapshots, "snapshot_steps": steps})
    assert drawn(folder) == ["inversions.png", "inversion_steps.png"]
    path = folder / "inversion_steps.png"
    for row in range(4):
        places = [where(path, start + row) for start in (0, 10, 20, 30)]
        assert [count for count, _, _ in places] == [SIDE**2] * 4
        assert len({top for _, top, _ in places}) == 1
        lefts = [left for _, _, left in places]
        assert lefts == sorted(lefts)
    assert where(path, 4)[0] == 0  # four images are shown


def test_of_many_snapshots_those_that_fit_are_shown_evenly(tmp_path, inverted):
    snapshots = torch.stack([color(number) for number in range(50)])
    folder = inverted(tmp_path, {"images": color(0), "snapshots": snapshots, "snapshot_steps": torch.arange(50)})
    drawn(folder)
    shown = [number for number in range(50) if where(folder / "inversion_steps.png", number)[0]]
    assert shown == [0, 7, 14, 21, 28, 35, 42, 49]


def test_pictures_of_an_earlier_inversion_are_removed(tmp_path, inverted):
    for name in ("inversions.png", "inversion_steps.png"):
        (tmp_path / name).write_bytes(b"old")
    assert drawn(inverted(tmp_path)) == []
    assert not list(tmp_path.glob("*.png"))


def test_pixels_that_are_no_numbers_are_blank(tmp_path, inverted):
    images = color(0, 1)
    images[1] = torch.nan
    drawn(inverted(tmp_path, {"images": images}))
    assert where(tmp_path / "inversions.png", 0)[0] == SIDE**2
    with Image.open(tmp_path / "inversions.png") as image:
        assert image.convert("RGB").getpixel((MARGIN + SIDE + GAP + 5, image.height - MARGIN - LINE - 10)) == (255,) * 3


def test_drawing_twice_gives_the_same_bytes(tmp_path, inverted):
    import matplotlib

    folder = inverted(tmp_path, {"images": color(0), "originals": color(1)})
    drawn(folder)
    before = (folder / "inversions.png").read_bytes()
    with matplotlib.rc_context({"font.size": 30, "figure.facecolor": "red", "text.usetex": True}):
        drawn(folder)
    assert (folder / "inversions.png").read_bytes() == before


def test_a_real_inversion_of_digits(tmp_path, inverted):
    samples = digits(None).samples("test", torch.tensor([0]))
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    nn.init.normal_(model[1].weight, std=0.1, generator=torch.Generator().manual_seed(0))
    loss = F.cross_entropy(model(samples.x), samples.y)
    gradient = dict(zip(("1.weight", "1.bias"), torch.autograd.grad(loss, list(model.parameters()))))
    seen = Observation(model=model, gradient=gradient, num_samples=1, sample_shape=(1, 8, 8), num_classes=10)
    with one_thread():
        [found] = agic([seen], torch.Generator().manual_seed(0), steps=100, snapshots=3, beta=1.0)
    scores = psnr(found.images, samples.x).tolist()
    steps = torch.tensor(found.snapshot_steps)
    tensors = {"images": found.images, "originals": samples.x, "snapshots": found.snapshots, "snapshot_steps": steps}
    folder = inverted(tmp_path, {**tensors, "psnr": scores, "labels": found.labels.tolist()})
    assert drawn(folder) == ["inversions.png", "inversion_steps.png"]
    assert read_inversions(folder).mean("psnr") == pytest.approx(scores[0])
    with Image.open(folder / "inversions.png") as image:
        page = np.asarray(image.convert("L")).astype(int)
    bottom = len(page) - MARGIN - 4 - LINE
    middle = slice(MARGIN + 7, MARGIN + SIDE, 15)
    shown = page[bottom - SIDE + 7 : bottom : 15, middle]
    assert np.array_equal(shown, (255 * found.images[0, 0]).round().numpy())


def test_means_are_over_the_images_that_have_a_number(tmp_path, inverted):
    folder = inverted(
        tmp_path, {"images": color(0, 1), "psnr": [10.0, None]}, {"images": color(2), "psnr": [40.0], "ssim": None}
    )
    records = read_inversions(folder)
    assert [records.mean(name) for name in ("psnr", "ssim", "lpips")] == [25.0, 0.5, None]


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"images": torch.zeros(2, 3, 8)}, r"0/images has shape \(2, 3, 8\), for 2 images"),
        ({"images": torch.zeros(2, 3, 8, 5000)}, "at most 4096 pixels are drawn"),
        ({"num_samples": 3, "labels": [0] * 3, "true_labels": None, "psnr": None, "ssim": None}, "for 3 images"),
        ({"originals": torch.zeros(2, 3, 8, 9)}, r"0/originals has shape \(2, 3, 8, 9\), the images \(2, 3, 8, 8\)"),
        ({"snapshots": torch.zeros(2, 2, 3, 8, 8), "snapshot_steps": torch.arange(3)}, "for 3 steps of"),
        ({"snapshots": torch.zeros(2, 2, 3, 8, 8)}, "is damaged.*snapshot_steps"),
        ({"images": torch.zeros(2, 3, 8, 8, dtype=torch.uint8)}, "values of type torch.uint8"),
        ({"psnr": [1.0]}, "psnr has 1 entries for 2 images at inversions.0"),
        ({"psnr": [1.0, float("inf")]}, "inversions.0.psnr.1"),
        ({"client": -1}, "inversions.0.client"),
        ({"curious": 5}, "at inversions.0.curious|string"),
    ],
)
def test_damage_is_one_sentence(tmp_path, inverted, changed, sentence):
    values = {"curious": changed.pop("curious")} if "curious" in changed else {}
    inverted(tmp_path, {"images": color(0, 1), **changed}, **values)
    with pytest.raises(ValueError, match=sentence) as refused:
        write_inversion_pictures(tmp_path)
    assert "\n" not in str(refused.value)
    assert "is damaged" in str(refused.value)


def test_files_that_are_cut_off_or_missing(tmp_path, inverted):
    whole = inverted(tmp_path, {"images": color(0)})
    tensors = (whole / "inversions.safetensors").read_bytes()
    for content in (b"", b"{", tensors[:-1], tensors[:20]):
        (whole / "inversions.safetensors").write_bytes(content)
        with pytest.raises(ValueError, match="safetensors is damaged"):
            write_inversion_pictures(whole)
    (whole / "inversions.safetensors").unlink()
    with pytest.raises(FileNotFoundError):
        write_inversion_pictures(whole)
    for content in (b"", b"{", b"[]", b"\xff", b"[" * 100_000, json.dumps({"curious": "x"}).encode()):
        (whole / "inversions.json").write_bytes(content)
        with pytest.raises(ValueError, match="json is damaged"):
            write_inversion_pictures(whole)


def test_a_record_too_large_is_not_read(tmp_path, inverted, monkeypatch):
    monkeypatch.setattr("thornbed.flower_apps.inversion.records.LARGEST", 10)
    with pytest.raises(ValueError, match="bytes, and at most 10 are read"):
        read_inversions(inverted(tmp_path, {"images": color(0)}))
    assert StoredInversions.model_fields["inversions"].is_required()
