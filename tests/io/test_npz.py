"""Tests for afmlib.io.npz."""

import io
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from afmlib.io.npz import NpzError, NpzFile, write_npz


def save(path, compressed=False, **arrays):
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    return str(path)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """An archive as it is and a compressed one, and the rows in them."""
    folder = tmp_path_factory.mktemp("npz")
    rows = np.random.default_rng(0).integers(0, 256, (37, 4, 4, 3), dtype=np.uint8)
    paths = [
        save(folder / f"{compressed}.npz", compressed, arr_0=rows, mu=np.arange(3.0))
        for compressed in (False, True)
    ]
    return rows, paths


@given(st.lists(st.tuples(st.integers(0, 37), st.integers(0, 40)), max_size=5), st.booleans())
def test_rows_match_numpy(images, ranges, compressed):
    rows, paths = images
    file = NpzFile(paths[compressed])

    for start, stop in ranges:
        stop = max(start, stop)
        np.testing.assert_array_equal(file.rows("arr_0", start, stop), rows[start:stop])


def test_arrays_match_numpy(tmp_path):
    arrays = {
        "scalar": np.array("some text"),
        "empty": np.zeros((0, 3)),
        "fortran": np.asfortranarray(np.random.rand(3, 4)),
        "half": np.random.rand(2).astype(np.float16),
    }
    file = NpzFile(save(tmp_path / "x.npz", **arrays))

    assert file.names == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(file.array(name), array)
    np.testing.assert_array_equal(file.rows("fortran", 1, 3), arrays["fortran"][1:3])
    with pytest.raises(NpzError, match=r"no array 'mu'.*It has scalar, empty"):
        file.header("mu")


def test_digest_depends_only_on_content(images, tmp_path):
    rows, paths = images
    digests = [NpzFile(path).digest() for path in paths]
    again = NpzFile(save(tmp_path / "a.npz", mu=np.arange(3.0), arr_0=rows)).digest()
    changed = NpzFile(save(tmp_path / "b.npz", mu=np.arange(3.0) + 1e-9, arr_0=rows)).digest()
    renamed = NpzFile(save(tmp_path / "c.npz", nu=np.arange(3.0), arr_0=rows)).digest()

    assert digests[0] == digests[1] == again
    assert len({again, changed, renamed}) == 3


class Harmful:
    def __reduce__(self):
        return print, ("Run!",)


def test_objects_are_not_unpickled(tmp_path, capsys):
    path = save(tmp_path / "x.npz", arr_0=np.array([Harmful()], dtype=object))

    with pytest.raises(NpzError, match=r"arr_0 .* holds objects, which are never unpickled"):
        NpzFile(path)

    assert capsys.readouterr().out == ""


def member(header_shape, content):
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": "<f8", "fortran_order": False, "shape": header_shape}
    )
    return buffer.getvalue() + content


@pytest.mark.parametrize("content", [b"", bytes(8), bytes(24)])
def test_wrong_header_raises_before_allocation(tmp_path, content):
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("mu.npy", member((10**9, 10**9), content))

    with pytest.raises(NpzError, match="not have the size in its header"):
        NpzFile(str(path))


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "foreign", "text"])
def test_corrupt_archive_raises(tmp_path, images, damage):
    path = tmp_path / "x.npz"
    content = Path(images[1][1]).read_bytes()
    middle = len(content) // 3
    foreign = io.BytesIO()
    with zipfile.ZipFile(foreign, "w") as archive:
        archive.writestr("mu.npy", "no numbers")
    path.write_bytes(
        {
            "empty": b"",
            "cut": content[:middle],
            "flipped": content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :],
            "foreign": b"x" * 99,
            "text": foreign.getvalue(),
        }[damage]
    )

    with pytest.raises(NpzError, match=r"x\.npz"):
        NpzFile(str(path)).digest()


def test_missing_file_raises(tmp_path):
    with pytest.raises(FileNotFoundError):
        NpzFile(str(tmp_path / "nowhere.npz"))


# --- Writing samples ---


@settings(max_examples=20)
@given(
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    shape=st.sampled_from([(3, 4, 5), (1, 2, 2), (2,), (4, 3, 3)]),
    is_image=st.booleans(),
)
def test_write_npz_roundtrip(sizes, shape, is_image, tmp_path_factory):
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
def test_wrong_sample_count_leaves_no_file(num, tmp_path):
    with pytest.raises(ValueError, match=f"{num} samples for 3 labels"):
        write_npz(str(tmp_path / "x.npz"), torch.zeros(num, 2).split(1) if num else [], range(3))

    assert list(tmp_path.iterdir()) == []


def header_of(shape, dtype="|u1"):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, dict(descr=dtype, fortran_order=False, shape=tuple(shape))
    )
    return file.getvalue()


def test_memory_is_checked_before_allocation(tmp_path, monkeypatch):
    path = save(tmp_path / "x.npz", True, arr_0=np.zeros((64, 2**20), np.uint8))
    file = NpzFile(path)
    monkeypatch.setattr("afmlib.io.bounds.available_memory", lambda: 2**25)

    tracemalloc.start()
    with pytest.raises(NpzError, match=r"arr_0 in .*x.npz needs 0\.0671 GB .* 0\.0336 GB are free"):
        file.array("arr_0")
    with pytest.raises(NpzError, match=r"needs 0\.0671 GB"):
        file.rows("arr_0", 0, 64)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 2**22
    assert file.rows("arr_0", 0, 8).shape == (8, 2**20)


def test_array_takes_its_size_in_memory(tmp_path):
    file = NpzFile(save(tmp_path / "x.npz", True, arr_0=np.zeros((64, 2**20), np.uint8)))

    tracemalloc.start()
    file.array("arr_0")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 1.3 * 64 * 2**20


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_size_is_checked_against_the_compressed_size(tmp_path, method):
    path, size = tmp_path / "x.npz", 2**30
    header = header_of([size])
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("arr_0.npy", header + bytes(100))
    content = bytearray(path.read_bytes())
    entry = content.index(b"PK\x01\x02")  # The central directory; the size is at byte 24.
    content[entry + 24 : entry + 28] = (len(header) + size).to_bytes(4, "little")
    path.write_bytes(content)

    with pytest.raises(NpzError, match=r"arr_0 in .*x.npz is corrupt: \d+ bytes cannot hold"):
        NpzFile(str(path))
