"""Tests for afmlib.io.bounds."""

import os
import socket

import pytest

from afmlib.io import bounds, storage
from afmlib.io.bounds import available_memory, check_plain_file, memory_shortage, open_plain_file

READERS = [open_plain_file, storage.read_bytes, storage.open_to_read, check_plain_file]


@pytest.mark.parametrize("read", READERS)
def test_link_to_a_device_is_an_error(tmp_path, read):
    path = tmp_path / "x.png"
    path.symlink_to("/dev/null")  # A failed test would read /dev/zero until memory is full.

    with pytest.raises(OSError, match=r"x\.png is a device, not a plain file"):
        read(str(path))


@pytest.mark.parametrize("read", READERS)
def test_fifo_is_an_error(tmp_path, read):
    path = tmp_path / "x.png"
    os.mkfifo(path)

    with pytest.raises(OSError, match=r"x\.png is a FIFO, not a plain file"):
        read(str(path))


@pytest.mark.parametrize("read", READERS)
def test_socket_and_folder_are_errors(tmp_path, read, monkeypatch):
    monkeypatch.chdir(tmp_path)  # The path of a socket must be short.
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        with pytest.raises(OSError, match="socket is a socket"):
            read("socket")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        read(str(tmp_path))


def test_file_that_becomes_a_fifo_is_an_error(tmp_path, monkeypatch):
    path = tmp_path / "x"
    os.mkfifo(path)
    monkeypatch.setattr(bounds, "check_plain_file", lambda path: None)

    with pytest.raises(OSError, match="is a FIFO"):
        open_plain_file(str(path))


@pytest.mark.parametrize("read", READERS[:3])
def test_link_to_a_file_is_read(tmp_path, read):
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to(tmp_path / "file")

    read_from = read(str(tmp_path / "link"))

    assert (read_from if isinstance(read_from, bytes) else read_from.read()) == b"content"


def test_file_larger_than_memory_is_an_error(tmp_path, monkeypatch):
    path = tmp_path / "x.png"
    with open(path, "wb") as file:
        file.truncate(2**40)  # It takes no space on the disk.

    with pytest.raises(OSError, match=r"x\.png needs 1\.1e\+03 GB of memory, and .* GB are free"):
        storage.read_bytes(str(path))


@pytest.mark.parametrize("root", ["local", "memory"])
def test_file_larger_than_the_limit_is_an_error(tmp_path, root):
    path = str(tmp_path / "x") if root == "local" else "memory://bounds/x"
    storage.write_atomically(path, bytes(100))

    assert storage.read_bytes(path, 100) == bytes(100)
    with pytest.raises(ValueError, match="x has 100 bytes, and at most 99 are read"):
        storage.read_bytes(path, 99)


def test_available_memory_of_this_machine():
    free = available_memory()

    assert free is None or 2**20 < free < 2**60
    assert memory_shortage(2**70) or free is None
    assert memory_shortage(2**20) == ""


@pytest.mark.parametrize(
    ("line", "root", "limit", "used", "prefix"),
    [
        ("0::/job", "", "memory.max", "memory.current", ""),
        ("4:memory:/job", "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
    ],
)
@pytest.mark.parametrize("below", ["job", ""])
def test_limit_of_a_control_group(tmp_path, monkeypatch, line, root, limit, used, prefix, below):
    folder = tmp_path / root / below
    folder.mkdir(parents=True, exist_ok=True)
    (folder / limit).write_text("1000\n")
    (folder / used).write_text("700\n")
    (folder / "memory.stat").write_text(
        f"anon 500\n{prefix}active_file 150\n{prefix}inactive_file 50\n"
    )
    (tmp_path / "cgroup").write_text(f"{line}\n1:cpu:/\n")
    monkeypatch.setattr(bounds, "CGROUPS", tmp_path)
    monkeypatch.setattr(bounds, "PROCESS_GROUPS", tmp_path / "cgroup")

    assert available_memory() == 500


def test_unlimited_control_group(tmp_path, monkeypatch):
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "cgroup").write_text("0::/\n")
    monkeypatch.setattr(bounds, "CGROUPS", tmp_path)
    monkeypatch.setattr(bounds, "PROCESS_GROUPS", tmp_path / "cgroup")

    assert bounds._control_group() is None
