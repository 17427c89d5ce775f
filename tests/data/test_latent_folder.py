"""Tests for afmlib.data.latent_folder."""

import functools
import http.server
import json
import os
import pickle
import re
import threading
import uuid
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch

from afmlib.data.latent_folder import LatentFolder, write_latents

SHAPE = (4, 2, 2)


@pytest.fixture(params=["local", "memory"])
def root(request, tmp_path):
    return str(tmp_path / "latents") if request.param == "local" else f"memory://{uuid.uuid4()}"


def latents(num=6, views=2, std=None):
    means = torch.randn(num, views, *SHAPE)
    stds = torch.rand(num, views, *SHAPE) if std is None else torch.full_like(means, std)
    return means, stds, torch.arange(num) % 3


def write(root, means, stds, labels, **options):
    options = dict(latent_scale=0.5, num_classes=3) | options
    write_latents(root, means, stds, labels, **options)
    return LatentFolder(root)


def edit(folder, **changes):
    path = folder / "conventions.json"
    conventions = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(conventions))


@pytest.mark.parametrize("views", [1, 2])
def test_write_then_read_roundtrip(root, views):
    means, stds, labels = latents(views=views)

    data = write(root, means, stds, labels, class_names=["a", "b", "c"])
    stored, some = data.__getitems__([4, 0, 4])

    assert len(data) == 6
    assert data.latent_shape == SHAPE
    assert (data.latent_scale, data.num_classes) == (0.5, 3)
    assert data.class_names == ("a", "b", "c")
    assert torch.equal(stored[:, :, 0], means[[4, 0, 4]])
    assert torch.equal(stored[:, :, 1], stds[[4, 0, 4]])
    assert some.tolist() == [1, 0, 1]


def test_plain_form_is_the_first_mean(root):
    means, stds, labels = latents()
    data = write(root, means, stds, labels)

    plain = data.augment(data.__getitems__(range(6))[0], None)

    assert torch.equal(plain, 0.5 * means[:, 0])


def test_zero_std_returns_a_mean(tmp_path):
    means, stds, labels = latents(num=200, std=0.0)
    data = write(str(tmp_path), means, stds, labels, latent_scale=1.0)
    stored, _ = data.__getitems__(range(200))

    draws = [data.draw(200, torch.Generator().manual_seed(5)) for _ in range(2)]
    drawn, again = (data.augment(stored, some) for some in draws)

    assert torch.equal(drawn, again)
    first, second = ((drawn == means[:, view]).flatten(1).all(1) for view in (0, 1))
    assert (first | second).all()
    assert 60 < first.sum() < 140


def test_posterior_moments(tmp_path):
    num = 20_000
    means, stds = torch.full((num, 1, *SHAPE), 3.0), torch.full((num, 1, *SHAPE), 0.5)
    data = write(str(tmp_path), means, stds, torch.zeros(num, dtype=torch.long), latent_scale=2.0)

    draws = data.draw(num, torch.Generator())
    drawn = data.augment(data.__getitems__(range(num))[0], draws)

    torch.testing.assert_close(drawn.mean().item(), 6.0, atol=0.02, rtol=0)
    torch.testing.assert_close(drawn.std().item(), 1.0, atol=0.02, rtol=0)


def test_half_precision_is_read_as_single(tmp_path):
    means, stds, labels = latents()

    data = write(str(tmp_path), means.half(), stds.half(), labels)

    assert data.__getitems__([0])[0].dtype == torch.float32


def test_local_files_are_mapped_not_read(tmp_path):
    data = write(str(tmp_path), *latents())

    assert isinstance(data._means, np.memmap)


def test_local_files_are_not_read_ahead(tmp_path):
    data = write(str(tmp_path), *latents())

    maps = Path("/proc/self/smaps").read_text().split("VmFlags:")
    of_means = [maps[i + 1] for i, text in enumerate(maps) if f"{tmp_path}/means.npy" in text]

    assert len(data) == 6
    assert all(" rr " in flags.splitlines()[0] for flags in of_means)
    assert of_means


class _Files(http.server.SimpleHTTPRequestHandler):
    """Files with byte ranges, which the handler of the standard library does not know."""

    sent = 0

    def do_GET(self):
        content = Path(self.translate_path(self.path)).read_bytes()
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if wanted and self.ranges:
            start, end = int(wanted[1]), int(wanted[2]) + 1
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(content)}")
            content = content[start:end]
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        type(self).sent += len(content)

    def log_message(self, *args):
        pass


@pytest.fixture(params=[True, False], ids=["ranges", "whole files"])
def server(request, tmp_path):
    """A web server of a folder: its handler and its URL."""
    handler = type("Files", (_Files,), {"ranges": request.param})
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(handler, directory=str(tmp_path))
    ) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield handler, f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_only_rows_of_remote_files_are_read(server, tmp_path):
    handler, url = server
    local = write(str(tmp_path), *latents(num=5000))
    if not handler.ranges:
        with pytest.raises((ValueError, OSError), match=r"byte ranges|size in its header"):
            LatentFolder(url).__getitems__([1])
        return

    data = LatentFolder(url)
    opened, handler.sent = handler.sent, 0
    stored, labels = data.__getitems__([4999, 17, 0, 17])

    size = (tmp_path / "means.npy").stat().st_size
    assert opened < size / 4  # Labels, headers and conventions.
    assert handler.sent < size / 100
    expected, same = local.__getitems__([4999, 17, 0, 17])
    assert torch.equal(stored, expected)
    assert torch.equal(labels, same)


def test_truncated_remote_file_is_named(root):
    write(root, *latents())
    fs, folder = fsspec.core.url_to_fs(root)
    fs.pipe_file(f"{folder}/stds.npy", fs.cat_file(f"{folder}/stds.npy")[:-4])

    with pytest.raises(ValueError, match=r"stds\.npy is corrupt"):
        LatentFolder(root)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no latents in .*nowhere: means\.npy, .* missing"):
        LatentFolder(str(tmp_path / "nowhere"))
    write(str(tmp_path), *latents())
    (tmp_path / "labels.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r": labels\.npy missing"):
        LatentFolder(str(tmp_path))


def test_pickles_raise(tmp_path):
    write(str(tmp_path), *latents())
    np.save(tmp_path / "labels.npy", np.array([{}] * 6, dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"labels\.npy is corrupt or not a plain array"):
        LatentFolder(str(tmp_path))
    (tmp_path / "labels.npy").write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(ValueError, match=r"labels\.npy is corrupt or not a plain array"):
        LatentFolder(str(tmp_path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(time="0 noise, 1 data"), "is '0 noise, 1 data', and must be '0 data, 1 noise'"),
        (dict(latent_scale=0), "latent_scale must be positive"),
        (dict(num_classes=2), "labels of .* must be 0 to 1, got 0 to 2"),
        (dict(num_classes="three"), "num_classes must be at least 1"),
        (dict(class_names=["a"]), "3 classes but 1 names"),
    ],
)
def test_other_conventions_raise(tmp_path, changes, message):
    write(str(tmp_path), *latents())
    edit(tmp_path, **changes)

    with pytest.raises(ValueError, match=message):
        LatentFolder(str(tmp_path))


def test_incomplete_conventions_raise(tmp_path):
    write(str(tmp_path), *latents())
    for text in ("{", "[]", '{"latent_scale": 1}'):
        (tmp_path / "conventions.json").write_text(text)
        with pytest.raises(ValueError, match=r"conventions\.json is corrupt or incomplete"):
            LatentFolder(str(tmp_path))


def test_inconsistent_arrays_are_not_written(tmp_path):
    means, stds, labels = latents()
    for parts in [
        (means, stds[:5], labels),
        (means, stds, labels[:5]),
        (means[:, 0], stds[:, 0], labels),
        (means, stds, labels.float()),
        (means.long(), stds, labels),
        (means, stds, labels + 1),
    ]:
        with pytest.raises(ValueError, match="latents"):
            write(str(tmp_path / "latents"), *parts)
    assert not (tmp_path / "latents").exists()


@pytest.mark.parametrize("name", ["means.npy", "labels.npy", "conventions.json"])
def test_only_plain_files_are_read(tmp_path, name):
    write(str(tmp_path), *latents())
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)

    with pytest.raises(OSError, match=f"{name} is a FIFO, not a plain file"):
        LatentFolder(str(tmp_path))
