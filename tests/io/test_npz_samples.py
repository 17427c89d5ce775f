"""Tests for afmlib.io.npz_samples."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from afmlib.io.npz_samples import write_npz


@settings(max_examples=20)
@given(
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    shape=st.sampled_from([(3, 4, 5), (1, 2, 2), (2,), (4, 3, 3)]),
    is_image=st.booleans(),
)
def test_batches_are_read_back_by_numpy_as_one_array(sizes, shape, is_image, tmp_path_factory):
    path = tmp_path_factory.mktemp("npz") / "samples.npz"
    samples = (255 * torch.rand(sum(sizes), *shape)).to(torch.uint8 if is_image else torch.float32)
    labels = torch.randint(0, 1000, (sum(sizes),))

    write_npz(str(path), samples.split(sizes), labels)

    found = np.load(path, allow_pickle=False)
    expected = samples.permute(0, 2, 3, 1) if is_image and len(shape) == 3 else samples
    np.testing.assert_array_equal(found["arr_0"], expected.numpy())
    np.testing.assert_array_equal(found["arr_1"], labels.numpy())
    assert found["arr_0"].dtype == (np.uint8 if is_image else np.float32)


@pytest.mark.parametrize("num", [0, 2, 4])
def test_another_number_of_samples_leaves_no_file(num, tmp_path):
    with pytest.raises(ValueError, match=f"{num} samples came for 3 labels"):
        write_npz(str(tmp_path / "x.npz"), torch.zeros(num, 2).split(1) if num else [], range(3))

    assert list(tmp_path.iterdir()) == []
