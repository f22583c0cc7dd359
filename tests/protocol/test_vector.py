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


@pytest.fixture
def normed():
    """A network with batch norm: two parameters of it, what it measures, and how often it did."""
    return to_arrays(
        {
            "norm.weight": torch.tensor([1.0, 2.0]),
            "norm.running_mean": torch.tensor([3.0, 4.0]),
            "norm.running_var": torch.tensor([5.0, 6.0]),
            "norm.num_batches_tracked": torch.tensor(7),
            "last.bias": torch.tensor([8.0]),
        }
    )


def test_statistics_make_a_vector_of_their_own(normed):
    layout = Layout.of(normed)
    assert (layout.dimension, layout.num_statistics) == (3, 4)
    assert layout.flatten(normed).tolist() == [1, 2, 8]
    assert layout.flatten_statistics(normed).tolist() == [3, 4, 5, 6]
    out = torch.zeros(2, 4)
    layout.flatten_statistics(normed, out[1])
    assert out.tolist() == [[0, 0, 0, 0], [3, 4, 5, 6]]


def test_each_vector_is_written_back_alone(normed):
    layout = Layout.of(normed)
    moved = to_tensors(layout.unflatten(torch.tensor([10.0, 20.0, 80.0]), normed))
    assert [moved[name].tolist() for name in normed] == [[10, 20], [3, 4], [5, 6], 7, [80]]
    measured = to_tensors(layout.unflatten_statistics(torch.tensor([30.0, 40.0, 50.0, 60.0]), normed))
    assert [measured[name].tolist() for name in normed] == [[1, 2], [30, 40], [50, 60], 7, [8]]


@pytest.mark.parametrize(
    ("names", "parameters"),
    [
        (["last.bias"], [1, 2, 3, 4, 5, 6]),
        (["norm.running_var", "norm.num_batches_tracked"], [1, 2, 3, 4, 8]),
        ([], [1, 2, 3, 4, 5, 6, 8]),
    ],
)
def test_statistics_are_those_that_are_named(normed, names, parameters):
    layout = Layout.of(normed, names)
    assert layout.flatten(normed).tolist() == parameters
    assert layout.dimension + layout.num_statistics == 7


def test_statistics_that_the_model_has_not_are_refused(normed):
    with pytest.raises(ValueError, match=r"there is none called norm\.running_men"):
        Layout.of(normed, {"norm.running_men", "norm.running_var"})


def test_statistics_that_do_not_move_keep_their_bits():
    """What float32 cannot hold and what is equal but not the same: a third in float64, a zero below 0."""
    constants = {
        "a.running_mean": torch.tensor([-0.0, 1.0]),
        "a.running_var": torch.tensor([1 / 3, 1.0], dtype=torch.float64),
        "b.running_var": torch.tensor([1 / 3], dtype=torch.float64),
    }
    arrays = to_arrays(constants)
    layout = Layout.of(arrays)
    vector = layout.flatten_statistics(arrays)
    vector[:2] += 0.0  # 0 where it was -0
    vector[4] = 0.5
    back = layout.unflatten_statistics(vector, arrays)
    assert [back[name].data == arrays[name].data for name in arrays] == [True, True, False]
    assert back["b.running_var"].numpy().tolist() == [0.5]
    assert back["b.running_var"].dtype == "float64"


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


@pytest.mark.parametrize(
    ("dtypes", "precision"),
    [
        (["float16", "float16"], torch.float32),
        (["float16", "float32"], torch.float32),
        (["float32", "int64"], torch.float32),
        (["float32", "float64"], torch.float64),
        ([">f8", "float16"], torch.float64),
    ],
)
def test_a_vector_is_as_precise_as_its_most_precise_array(dtypes, precision):
    arrays = ArrayRecord({f"w{number}": Array(np.arange(3).astype(dtype)) for number, dtype in enumerate(dtypes)})
    layout = Layout.of(arrays)
    vector = layout.flatten(arrays)
    assert layout.dtype == vector.dtype == precision
    back = layout.unflatten(vector, arrays)
    assert [back[name].data for name in arrays] == [arrays[name].data for name in arrays]
    assert layout.not_finite(back) is None


def test_statistics_have_a_precision_of_their_own():
    arrays = to_arrays({"w": torch.zeros(1), "a.running_var": torch.tensor([1 + 1e-12], dtype=torch.float64)})
    layout = Layout.of(arrays)
    assert (layout.dtype, layout.statistics_dtype) == (torch.float32, torch.float64)
    moved = layout.unflatten_statistics(layout.flatten_statistics(arrays) + 1e-9, arrays)
    assert moved["a.running_var"].numpy()[0] == pytest.approx(1 + 1e-12 + 1e-9, rel=1e-15)


def test_what_a_cast_makes_infinite_is_named():
    arrays = to_arrays({"a": torch.ones(2), "b": torch.ones(3, dtype=torch.float16), "n": torch.tensor(1)})
    layout = Layout.of(arrays)
    moved = layout.unflatten(torch.tensor([1.0, 1e30, 65504.0, 65520.0, -1e30]), arrays)
    assert layout.not_finite(moved) == ("b", 2)


def test_a_dtype_that_cannot_travel_is_a_sentence():
    with pytest.raises(ValueError, match=r"w is torch\.bfloat16, which cannot travel: cast it to float32 or float16"):
        to_arrays({"w": torch.zeros(1, dtype=torch.bfloat16)})
    for dtype in ("bfloat16", "float128", "<U2"):
        odd = ArrayRecord({"w": Array(dtype=dtype, shape=(1,), stype="numpy.ndarray", data=b"\0" * 100)})
        with pytest.raises(ValueError, match="array w"):
            to_tensors(odd)
