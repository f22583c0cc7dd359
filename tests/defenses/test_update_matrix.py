"""What is refused before any rule looks, and how the matrix is handed out in ranges of columns."""

import numpy as np
import pytest
import torch

from thornbed.defenses.update_matrix import like, over_columns, update_matrix


def test_a_cpu_tensor_is_not_copied_and_cannot_be_written():
    updates = torch.randn(3, 5)
    matrix = update_matrix("rule", updates, torch.ones(3))
    assert matrix.ctypes.data == updates.data_ptr()
    with pytest.raises(ValueError, match="read-only"):
        matrix[0, 0] = 1.0
    updates[0, 0] = 7.0  # the caller's own tensor stays writable
    assert matrix[0, 0] == 7.0


def test_a_tensor_that_wants_gradients_is_taken():
    updates = torch.randn(3, 5, requires_grad=True)
    assert update_matrix("rule", updates, torch.ones(3)).shape == (3, 5)


@pytest.mark.parametrize(
    ("updates", "weights", "message"),
    [
        (torch.zeros(4), torch.ones(4), r"rule needs updates of 2 dimensions \(n, d\): got 1, shape \[4\]"),
        (torch.zeros(2, 3, 4), torch.ones(2), r"rule needs updates of 2 dimensions \(n, d\): got 3, shape \[2, 3, 4\]"),
        (
            torch.zeros(4, 3).half(),
            torch.ones(4),
            "rule needs updates of torch.float32 or torch.float64: got torch.float16",
        ),
        (
            torch.full((4, 3), torch.nan).double(),
            torch.ones(4),
            "rule needs float64 updates of values within",
        ),
        (torch.zeros(0, 3), torch.ones(0), "rule needs n >= 1 clients and d >= 1 parameters: n = 0, d = 3"),
        (torch.zeros(4, 0), torch.ones(4), "rule needs n >= 1 clients and d >= 1 parameters: n = 4, d = 0"),
        (torch.zeros(4, 3), torch.ones(5), r"rule needs one weight a client: n = 4, weights of shape \[5\]"),
        (torch.zeros(4, 3), torch.ones(4, 1), r"rule needs one weight a client: n = 4, weights of shape \[4, 1\]"),
        (torch.zeros(4, 3), torch.tensor(1.0), r"rule needs one weight a client: n = 4, weights of shape \[\]"),
        (torch.zeros(4, 3), torch.ones(4).long(), "rule needs weights that are floating-point shares: got torch.int64"),
    ],
)
def test_refusals_name_what_was_given(updates, weights, message):
    with pytest.raises(ValueError, match=message):
        update_matrix("rule", updates, weights)


@pytest.mark.parametrize("d", [1, 65_535, 65_536, 65_537, 200_000])
def test_ranges_cover_every_column_once_and_in_order(d):
    matrix = np.arange(2 * d, dtype=np.float32).reshape(2, d)
    seen = over_columns(matrix, lambda flat, stride, columns: (columns, flat[0], flat[stride]))
    assert [columns.start for columns, _, _ in seen] == list(range(0, d, 65_536))
    assert [columns.stop for columns, _, _ in seen][-1] == d
    for columns, first, second in seen:
        assert (first, second) == (matrix[0, columns.start], matrix[1, columns.start])


@pytest.mark.parametrize(
    "matrix",
    [
        np.arange(24, dtype=np.float32).reshape(4, 6),
        np.arange(24, dtype=np.float32).reshape(6, 4).T,
        np.arange(48, dtype=np.float32).reshape(4, 12)[:, ::2],
        np.arange(48, dtype=np.float32).reshape(8, 6)[::2],
        np.arange(48, dtype=np.float32).reshape(4, 12)[:, 3:9],
        np.arange(24, dtype=np.float32).reshape(4, 6)[::-1],
        np.arange(24, dtype=np.float32).reshape(4, 6)[:, ::-1],
        np.broadcast_to(np.arange(6, dtype=np.float32), (4, 6)),
        np.arange(6, dtype=np.float32).reshape(1, 6),
        np.arange(6, dtype=np.float32).reshape(6, 1),
    ],
    ids=["plain", "transposed", "columns", "rows", "window", "reversed", "mirrored", "expanded", "row", "column"],
)
def test_any_layout_is_read_right(matrix):
    n, d = matrix.shape
    (rows,) = over_columns(matrix, lambda flat, stride, _: [flat[i * stride : i * stride + d].copy() for i in range(n)])
    np.testing.assert_array_equal(rows, matrix)


def test_an_error_in_a_range_is_raised_to_the_caller():
    def work(flat, stride, columns):
        raise RuntimeError("a range failed")

    with pytest.raises(RuntimeError, match="a range failed"):
        over_columns(np.zeros((2, 200_000), np.float32), work)


def test_like_gives_float32_on_the_same_device():
    result = like(torch.zeros(2, 3), np.ones(3, np.float32))
    assert result.dtype == torch.float32
    assert result.device == torch.device("cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_tensor_on_a_gpu_is_copied_and_the_result_goes_back():
    updates = torch.randn(3, 5, device="cuda")
    matrix = update_matrix("rule", updates, torch.ones(3, device="cuda"))
    np.testing.assert_array_equal(matrix, updates.cpu().numpy())
    assert like(updates, np.ones(5, np.float32)).device == updates.device
