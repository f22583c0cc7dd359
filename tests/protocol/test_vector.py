import io

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord

from thornbed.protocol.vector import Layout, to_arrays, to_tensors


@pytest.fixture
def tensors():
    return {
        "a": torch.arange(6, dtype=torch.float32).reshape(2, 3),
        "count": torch.tensor(5),
        "b": torch.tensor([10.0, 20.0]),
        "scalar": torch.tensor(-1.5),
    }


def test_the_vector_holds_the_floats_in_order(tensors):
    arrays = to_arrays(tensors)
    layout = Layout.of(arrays)
    assert layout.dimension == 9
    assert layout.flatten(arrays).tolist() == [0, 1, 2, 3, 4, 5, 10, 20, -1.5]


def test_back_and_forth_is_exact_and_integers_stay(tensors):
    arrays = to_arrays(tensors)
    layout = Layout.of(arrays)
    back = to_tensors(layout.unflatten(layout.flatten(arrays) + 1, arrays))
    assert back["count"].item() == 5
    assert back["count"].dtype == torch.int64
    for name in ("a", "b", "scalar"):
        assert torch.equal(back[name], tensors[name] + 1)
        assert back[name].shape == tensors[name].shape


def test_fortran_order_is_read_right():
    values = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))
    arrays = ArrayRecord({"a": Array(values)})
    assert Layout.of(arrays).flatten(arrays).tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("b"), "missing array b"),
        (lambda t: t.update(extra=torch.zeros(1)), "unexpected array extra"),
        (lambda t: t.update(a=torch.zeros(3, 2)), r"shape \(3, 2\) instead of \(2, 3\)"),
        (lambda t: t.update(a=torch.zeros(2, 3, dtype=torch.float64)), "dtype float64 instead of float32"),
    ],
)
def test_a_mismatch_is_named(tensors, change, words):
    layout = Layout.of(to_arrays(tensors))
    change(tensors)
    import re

    assert re.search(words, layout.mismatch(to_arrays(tensors)))


def test_bytes_that_are_not_what_the_record_says_are_refused_before_anything_is_allocated():
    honest = ArrayRecord({"a": Array(np.zeros(4, dtype=np.float32))})
    layout = Layout.of(honest)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**12,)})
    for data in (b"", b"junk", honest["a"].data[:-1], honest["a"].data + b"x", header.getvalue()):
        arrays = ArrayRecord({"a": Array(dtype="float32", shape=(4,), stype="numpy.ndarray", data=data)})
        assert layout.mismatch(arrays) is None  # the record looks right
        with pytest.raises(ValueError, match="array a"):
            layout.flatten(arrays)


def test_an_object_array_is_refused_without_unpickling():
    buffer = io.BytesIO()
    np.save(buffer, np.array([print], dtype=object), allow_pickle=True)
    arrays = ArrayRecord({"a": Array(dtype="float32", shape=(1,), stype="numpy.ndarray", data=buffer.getvalue())})
    layout = Layout.of(ArrayRecord({"a": Array(np.zeros(1, dtype=np.float32))}))
    with pytest.raises(ValueError, match="array a"):
        layout.flatten(arrays)
