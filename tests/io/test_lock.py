"""Tests for afmlib.io.lock."""

import json
import logging
import os
import signal
import socket
import time

import fsspec
import pytest
from forks import Fork
from lock_holder import hold

from afmlib.io import lock, storage
from afmlib.io.lock import LOCK, only_writer


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(lock, "SETTLE", 0.05)


@pytest.fixture(params=["local", "memory", "s3"])
def folder(request, tmp_path):
    """A folder on each kind of file system."""
    if request.param == "s3":
        yield request.getfixturevalue("s3_folder")
    elif request.param == "memory":
        yield "memory://lock"
        fsspec.filesystem("memory").store.clear()
    else:
        yield str(tmp_path / "run")


def write_lock(folder, **changes):
    content = {**lock._identity(), **changes}
    storage.write_atomically(storage.join(folder, LOCK), json.dumps(content).encode())


def read_lock(folder):
    return json.loads(storage.read_bytes(storage.join(folder, LOCK)))


def is_locked(folder):
    return storage.exists(storage.join(folder, LOCK))


def wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_second_writer_is_refused(folder):
    with only_writer(folder):
        message = f"is in use by process {os.getpid()} on {socket.gethostname()}.*remove .*{LOCK}"
        with pytest.raises(FileExistsError, match=message), only_writer(folder):
            pass
        assert read_lock(folder)["pid"] == os.getpid()  # The refusal left it.

    assert not is_locked(folder)
    with only_writer(folder):
        pass


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_error_removes_lock(folder, error):
    with pytest.raises(error), only_writer(folder):
        raise error

    assert not storage.exists(folder) or not storage.list_files(folder)


def test_existing_folder_and_outputs_stay(tmp_path):
    with only_writer(str(tmp_path / "new")):
        (tmp_path / "new/output").touch()
    (tmp_path / "old").mkdir()
    with only_writer(str(tmp_path / "old")):
        pass

    assert sorted(path.name for path in tmp_path.rglob("*")) == ["new", "old", "output"]


def test_killed_writer_is_replaced_at_once(tmp_path, caplog):
    run = Fork(tmp_path / "output.txt", hold, str(tmp_path / "run"))
    run.wait_for(lambda: is_locked(str(tmp_path / "run")))
    os.kill(run.process.pid, signal.SIGKILL)  # Not joined: it stays as a zombie.

    with caplog.at_level(logging.INFO, logger="afmlib"):
        wait_until(lambda: lock._process_started(run.process.pid) is None)
        with only_writer(str(tmp_path / "run")):
            assert read_lock(str(tmp_path / "run"))["pid"] == os.getpid()

    (message,) = [record.getMessage() for record in caplog.records]
    assert f"took over the lock of process {run.process.pid} on" in message


@pytest.mark.parametrize(
    "changes",
    [
        {"process_started": "1"},  # Its process id was reused.
        {"pid": 2**22 + 1},
        {"pid": 10**30},
        {"heartbeat": 1},
        {"heartbeat": 1, "host": "elsewhere"},
    ],
)
def test_stale_lock_is_taken_over(folder, changes):
    write_lock(folder, **changes)

    with only_writer(folder):
        assert read_lock(folder)["heartbeat"] > 1

    assert not is_locked(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"pid": 2**22 + 1, "host": "elsewhere"},
        {"pid": 2**22 + 1, "machine": "another boot or container"},
        {"pid": None, "heartbeat": "yes"},
    ],
)
def test_lock_that_may_live_is_refused(folder, changes):
    write_lock(folder, **changes)

    with pytest.raises(FileExistsError, match="is in use by"), only_writer(folder):
        pass

    assert is_locked(folder)


def test_incomplete_lock_is_taken_over(folder):
    storage.write_atomically(storage.join(folder, LOCK), b'{"host"')

    with only_writer(folder):
        assert read_lock(folder)["pid"] == os.getpid()


def test_file_is_no_folder(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(NotADirectoryError, match="is a file"), only_writer(str(tmp_path / "file")):
        pass


def test_heartbeat(folder, monkeypatch):
    monkeypatch.setattr(lock, "INTERVAL", 0.01)
    with only_writer(folder):
        first = read_lock(folder)
        wait_until(lambda: (lock._read(storage.join(folder, LOCK)) or first) != first)
        storage.remove_file(storage.join(folder, LOCK))
        wait_until(lambda: is_locked(folder))


def test_writer_that_lost_its_lock_exits(tmp_path):
    folder = str(tmp_path / "run")
    run = Fork(tmp_path / "output.txt", hold, folder, 0.01)
    run.wait_for(lambda: is_locked(folder))
    write_lock(folder)

    assert run.wait(60) == 1
    assert read_lock(folder)["pid"] == os.getpid()


def test_one_of_many_takes_over(tmp_path):
    folder = str(tmp_path / "run")
    write_lock(folder, pid=2**22 + 1)

    runs = [Fork(tmp_path / f"{index}.txt", hold, folder) for index in range(4)]
    wait_until(lambda: [run.wait(0.01) for run in runs].count(3) == 3)

    assert [run.wait(1.5) for run in runs].count(None) == 1
    for run in runs:
        run.kill()


def test_other_ranks_hold_no_lock(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")

    with only_writer(str(tmp_path)):
        assert not is_locked(str(tmp_path))
