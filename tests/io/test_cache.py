"""Tests for afmlib.io.cache."""

import logging
import os
from pathlib import Path

import fsspec
import pytest

from afmlib.io import cache, storage
from afmlib.io.cache import local_copy


@pytest.fixture(autouse=True)
def folder(tmp_path_factory, monkeypatch):
    path = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("AFMLIB_CACHE", str(path))
    return path


def kept(folder):
    return [file.name for file in folder.rglob("*") if file.is_file()]


def test_local_file_is_not_copied(tmp_path, folder):
    assert local_copy(str(tmp_path / "x")) == str(tmp_path / "x")
    assert local_copy(f"file://{tmp_path}/x") == str(tmp_path / "x")
    assert kept(folder) == []


def test_web_file_is_downloaded_once(web, tmp_path, folder, monkeypatch):
    (tmp_path / "model.pth").write_bytes(b"weights")

    first = local_copy(f"{web}/model.pth")
    monkeypatch.setattr(cache, "_fetch", None)  # Would fail if it were called.
    again = local_copy(f"{web}/model.pth")

    assert first == again
    assert Path(first).read_bytes() == b"weights"
    assert len(kept(folder)) == 1


def test_server_without_range_requests(web, tmp_path):
    content = bytes(range(256)) * 25_000  # Longer than the read-ahead buffer.
    (tmp_path / "large.pth").write_bytes(content)

    assert Path(local_copy(f"{web}/large.pth")).read_bytes() == content


def test_object_store_file_is_downloaded(s3_folder):
    storage.write_atomically(f"{s3_folder}/model.pth", b"weights")

    assert Path(local_copy(f"{s3_folder}/model.pth")).read_bytes() == b"weights"
    with pytest.raises(FileNotFoundError):
        local_copy(f"{s3_folder}/nowhere.pth")


def test_progress_ends_at_all_bytes(web, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(cache._Bar, "call", lambda bar, *_, **__: seen.append(bar.value))
    (tmp_path / "large.pth").write_bytes(bytes(6_400_000))

    local_copy(f"{web}/large.pth")

    assert seen[-1] == 6_400_000
    assert seen == sorted(seen)


def test_new_version_replaces_copy(folder):
    url = "memory://cache-tests/model.pth"
    fsspec.filesystem("memory").pipe_file(url, b"one")
    first = local_copy(url)
    fsspec.filesystem("memory").pipe_file(url, b"three")

    second = local_copy(url)

    assert Path(second).read_bytes() == b"three"
    assert not os.path.exists(first)
    assert len(kept(folder)) == 1


def test_offline_uses_copy_with_warning(web, tmp_path, caplog, monkeypatch):
    (tmp_path / "model.pth").write_bytes(b"weights")
    copy = local_copy(f"{web}/model.pth")

    def down(path):
        raise OSError(f"{path}: the network is down")

    monkeypatch.setattr(cache, "_version", down)
    with caplog.at_level(logging.WARNING, logger="afmlib"):
        assert local_copy(f"{web}/model.pth") == local_copy(f"{web}/model.pth") == copy
    assert caplog.text.count("the network is down") == 1
    with pytest.raises(OSError, match="the network is down"):
        local_copy(f"{web}/other.pth")


def test_server_error_is_not_missing_file(web, tmp_path):
    with pytest.raises(FileNotFoundError):
        local_copy(f"{web}/nowhere.pth")
    with pytest.raises(OSError) as failure:  # Nobody listens there.
        local_copy("http://127.0.0.1:9/model.pth")
    assert not isinstance(failure.value, FileNotFoundError)


def test_truncated_download_leaves_no_file(folder, monkeypatch):
    url = "memory://cache-tests/torn.pth"
    fsspec.filesystem("memory").pipe_file(url, b"weights")
    monkeypatch.setattr(cache, "_version", lambda path: (8, "version"))

    with pytest.raises(OSError, match="received 7 of 8 bytes"):
        local_copy(url)

    assert kept(folder) == []


def test_missing_package_names_extra(monkeypatch):
    def missing(protocol):
        raise ImportError("no such package")

    monkeypatch.setattr("fsspec.get_filesystem_class", missing)
    for url, extra in (("hf://a/b/c.pth", "hf"), ("https://a/c.pth", "http"), ("s3://a/c", "s3")):
        with pytest.raises(OSError, match=rf"pip install 'afmlib\[{extra}\]'"):
            local_copy(url)
