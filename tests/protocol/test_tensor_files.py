"""Files of tensors: the same content is the same bytes."""

import torch

from thornbed.protocol.tensor_files import load_tensors, save_tensors


def test_the_same_tensors_and_texts_make_the_same_bytes(tmp_path):
    """safetensors orders its texts by chance: eight have 40,320 orders."""
    tensors = {"weight": torch.arange(6.0).reshape(2, 3), "count": torch.tensor(3)}
    texts = {f"text {n}": f'"quoted" \\ back\x01\x1f\n é 🌹 {n}' for n in range(8)}
    paths = [tmp_path / f"{n}.safetensors" for n in range(3)]
    for path in paths:
        save_tensors(path, tensors, texts)
    assert len({path.read_bytes() for path in paths}) == 1
    found, said = load_tensors(paths[0])
    assert said == texts
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


def test_a_file_without_tensors_is_read_again(tmp_path):
    for place, texts in enumerate((None, {}, {"left": "3 0"})):
        save_tensors(tmp_path / str(place), {}, texts)
        assert load_tensors(tmp_path / str(place)) == ({}, texts or {})
