"""Tests for afmlib.io.storage."""

import errno
import os
import stat
import threading

import fsspec
import pytest

from afmlib.io import storage


@pytest.fixture(params=["disk", "memory"])
def root(request, tmp_path):
    """A folder on a disk, and one on a file system that is none."""
    if request.param == "disk":
        yield str(tmp_path)
        return
    yield "memory://storage-tests"
    fsspec.filesystem("memory").rm("/storage-tests", recursive=True)


def no_space(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def interrupt(*_, **__):
    raise KeyboardInterrupt


def test_what_is_written_is_read(root):
    path = storage.join(root, "run", "checkpoints", "weights.bin")
    content = bytes(range(256))

    assert not storage.exists(path)
    storage.write_atomically(path, content)
    assert storage.exists(path)
    assert storage.read_bytes(path) == content
    storage.write_atomically(path, b"")
    assert storage.read_bytes(path) == b""


def test_a_missing_file_says_so(root):
    storage.write_atomically(storage.join(root, "there"), b"")

    with pytest.raises(FileNotFoundError):
        storage.read_bytes(storage.join(root, "missing"))


def test_folders_are_listed_by_name_without_files(root):
    for name in ("b/file", "a/file", "a/deep/file", "file", "10/x"):
        storage.write_atomically(storage.join(root, "run", name), b"1")

    assert storage.list_folders(storage.join(root, "run")) == ["10", "a", "b"]
    assert storage.list_folders(storage.join(root, "run") + "/") == ["10", "a", "b"]
    assert storage.list_folders(storage.join(root, "nowhere")) == []


def test_a_folder_is_removed_with_all_in_it(root):
    folder = storage.join(root, "run", "old")
    for name in ("one", "deep/two"):
        storage.write_atomically(storage.join(folder, name), b"1")
    storage.write_atomically(storage.join(root, "run", "new", "one"), b"2")

    storage.remove_folder(folder)
    storage.remove_folder(folder)  # It is not there any more: nothing to do.

    assert storage.list_folders(storage.join(root, "run")) == ["new"]
    assert not storage.exists(storage.join(folder, "deep/two"))


def test_names_are_joined_below_folders_and_urls():
    assert storage.join("a/", "b", "c") == "a/b/c"
    assert storage.join("s3://bucket/run/", "x") == "s3://bucket/run/x"


def test_a_bare_file_name_lies_in_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    storage.write_atomically("bare.txt", b"1")

    assert (tmp_path / "bare.txt").read_bytes() == b"1"


def test_a_file_system_whose_package_is_missing_is_an_os_error(monkeypatch):
    def missing(*_, **__):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)

    with pytest.raises(OSError, match=r"s3://bucket needs a package.*s3fs"):
        storage.exists("s3://bucket")


# --- Whole or not at all ---


@pytest.mark.parametrize("failure", [no_space, interrupt])
@pytest.mark.parametrize("call", ["fsync", "chmod", "replace"])
def test_a_failed_write_leaves_what_was_there_and_nothing_else(
    tmp_path, monkeypatch, call, failure
):
    path = tmp_path / "state"
    storage.write_atomically(str(path), b"before")
    monkeypatch.setattr(storage.os, call, failure)

    with pytest.raises((OSError, KeyboardInterrupt)):
        storage.write_atomically(str(path), b"after")

    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["state"]
    assert path.read_bytes() == b"before"


def test_a_full_disk_leaves_what_was_there_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "state"
    storage.write_atomically(str(path), b"before")
    open_descriptor = os.fdopen

    class FullDisk:
        def __init__(self, handle, mode):
            self.file = open_descriptor(handle, mode)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def write(self, content):
            self.file.write(content[: len(content) // 2])
            no_space()

    monkeypatch.setattr(storage.os, "fdopen", FullDisk)
    with pytest.raises(OSError, match="No space left"):
        storage.write_atomically(str(path), b"after")

    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["state"]
    assert path.read_bytes() == b"before"


def test_an_interruption_just_after_the_rename_is_not_hidden_by_its_clean_up(tmp_path, monkeypatch):
    replace = os.replace

    def replace_and_interrupt(*paths):
        replace(*paths)
        raise KeyboardInterrupt

    monkeypatch.setattr(storage.os, "replace", replace_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        storage.write_atomically(str(tmp_path / "state"), b"after")

    assert (tmp_path / "state").read_bytes() == b"after"


def test_the_content_is_on_the_disk_before_its_name_is(tmp_path, monkeypatch):
    order = []

    def recorded(name):
        function = getattr(os, name)

        def record(*arguments):
            kind = ""
            if name == "fsync":
                mode = os.fstat(arguments[0]).st_mode
                kind = " folder" if stat.S_ISDIR(mode) else f" {os.fstat(arguments[0]).st_size}"
            order.append(name + kind)
            return function(*arguments)

        return record

    for name in ("fsync", "replace"):
        monkeypatch.setattr(storage.os, name, recorded(name))
    storage.write_atomically(str(tmp_path / "state"), b"12345")

    assert order == ["fsync 5", "replace", "fsync folder"]


def test_a_reader_sees_the_old_or_the_new_and_never_a_part(tmp_path):
    path = str(tmp_path / "state")
    contents = [bytes([i]) * 100_000 for i in range(20)]
    storage.write_atomically(path, contents[0])

    def write():
        for content in contents:
            storage.write_atomically(path, content)

    writer = threading.Thread(target=write)
    writer.start()
    seen = []
    while writer.is_alive():
        seen.append(storage.read_bytes(path))
    writer.join()

    assert set(seen) <= set(contents)
    assert storage.read_bytes(path) == contents[-1]


@pytest.mark.parametrize("mask", [0o022, 0o002, 0o077, 0o000])
def test_permissions_are_those_of_any_new_file(tmp_path, mask):
    before = os.umask(mask)
    try:
        storage.write_atomically(str(tmp_path / "ours"), b"1")
        (tmp_path / "plain").write_bytes(b"1")
        assert os.umask(mask) == mask  # It was put back.
    finally:
        os.umask(before)

    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("ours", "plain")]
    assert modes == [0o666 & ~mask] * 2
