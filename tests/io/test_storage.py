"""Tests for afmlib.io.storage."""

import errno
import os
import stat
import subprocess
import sys
import threading
import uuid

import fsspec
import pytest
from fsspec.registry import _registry, known_implementations

from afmlib.io import storage


@pytest.fixture(params=["disk", "memory", "s3"])
def root(request, tmp_path):
    """A folder on a disk, one in memory, and one on an object store."""
    if request.param == "disk":
        return str(tmp_path)
    if request.param == "memory":
        return f"memory://storage-tests/{uuid.uuid4()}"
    return request.getfixturevalue("s3_folder")


def no_space(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def interrupt(*_, **__):
    raise KeyboardInterrupt


def test_write_and_read(root):
    path = storage.join(root, "run", "checkpoints", "weights.bin")
    content = bytes(range(256))

    assert not storage.exists(path)
    storage.write_atomically(path, content)
    assert storage.exists(path)
    assert storage.read_bytes(path) == content
    storage.write_atomically(path, b"")
    assert storage.read_bytes(path) == b""


def test_missing_file_raises(root):
    storage.write_atomically(storage.join(root, "there"), b"")

    with pytest.raises(FileNotFoundError):
        storage.read_bytes(storage.join(root, "missing"))


def test_list_folders(root):
    for name in ("b/file", "a/file", "a/deep/file", "file", "10/x"):
        storage.write_atomically(storage.join(root, "run", name), b"1")

    assert storage.list_folders(storage.join(root, "run")) == ["10", "a", "b"]
    assert storage.list_folders(storage.join(root, "run") + "/") == ["10", "a", "b"]
    assert storage.list_folders(storage.join(root, "nowhere")) == []


def test_remove_folder(root):
    folder = storage.join(root, "run", "old")
    for name in ("one", "deep/two"):
        storage.write_atomically(storage.join(folder, name), b"1")
    storage.write_atomically(storage.join(root, "run", "new", "one"), b"2")

    storage.remove_folder(folder)
    storage.remove_folder(folder)  # It is not there any more: nothing to do.

    assert storage.list_folders(storage.join(root, "run")) == ["new"]
    assert not storage.exists(storage.join(folder, "deep/two"))


def test_list_and_remove_files(root):
    for name in ("b", "a", "folder/file"):
        storage.write_atomically(storage.join(root, "run", name), b"1")

    assert storage.list_files(storage.join(root, "run")) == ["a", "b"]
    storage.remove_file(storage.join(root, "run", "a"))
    storage.remove_file(storage.join(root, "run", "a"))  # It is not there any more.

    assert storage.list_files(storage.join(root, "run")) == ["b"]
    assert storage.list_files(storage.join(root, "nowhere")) == []


def test_rename_folder(root):
    old, new = storage.join(root, "run", "10"), storage.join(root, "run", "10.damaged")
    contents = {"a": b"1", "deep/b": b"2"}
    for name, content in contents.items():
        storage.write_atomically(storage.join(old, name), content)

    storage.rename_folder(old, new)

    assert storage.list_folders(storage.join(root, "run")) == ["10.damaged"]
    assert {name: storage.read_bytes(storage.join(new, name)) for name in contents} == contents
    storage.write_atomically(storage.join(old, "a"), b"3")
    with pytest.raises(FileExistsError, match="damaged already exists"):
        storage.rename_folder(old, new)
    assert storage.read_bytes(storage.join(new, "a")) == b"1"


@pytest.mark.parametrize("name", ["run[1]", "run*", "run?"])
def test_folder_names_are_not_patterns(root, name):
    folder, neighbor = storage.join(root, name), storage.join(root, "run1")
    for place in (folder, neighbor):
        storage.write_atomically(storage.join(place, "deep/file"), b"1")

    storage.rename_folder(folder, folder + ".damaged")
    assert set(storage.list_folders(root)) == {"run1", f"{name}.damaged"}
    storage.remove_folder(folder + ".damaged")

    assert storage.list_folders(root) == ["run1"]
    assert storage.read_bytes(storage.join(neighbor, "deep/file")) == b"1"


def test_writer_function_and_its_error(root):
    path = storage.join(root, "file")

    def fail(file):
        file.write(b"half")
        raise KeyError("mine")

    storage.write_atomically(path, lambda file: [file.write(b"1"), file.write(b"2")])
    with pytest.raises(KeyError, match="mine"):
        storage.write_atomically(path, fail)

    assert storage.read_bytes(path) == b"12"
    with storage.open_to_read(path) as file:
        assert (file.read(1), file.seek(0), file.read()) == (b"1", 0, b"12")
    assert storage.list_files(root) == ["file"]


def test_remove_temporaries(tmp_path):
    for name in ("tmp1.part", "state", "folder/tmp2.part"):
        storage.write_atomically(str(tmp_path / name), b"1")

    storage.remove_temporaries(str(tmp_path))
    storage.remove_temporaries(str(tmp_path / "nowhere"))

    assert storage.list_files(str(tmp_path)) == ["state"]
    assert storage.list_files(str(tmp_path / "folder")) == ["tmp2.part"]


def test_local_path(tmp_path):
    assert storage.is_local(str(tmp_path))
    assert storage.local_path(f"file://{tmp_path}/x") == f"{tmp_path}/x"
    assert not storage.is_local("memory://x")
    assert storage.local_path("memory://x") is None


def test_join():
    assert storage.join("a/", "b", "c") == "a/b/c"
    assert storage.join("s3://bucket/run/", "x") == "s3://bucket/run/x"


def test_bare_file_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    storage.write_atomically("bare.txt", b"1")

    assert (tmp_path / "bare.txt").read_bytes() == b"1"


# --- Missing files and file systems ---


@pytest.mark.parametrize(
    ("url", "package", "extra"),
    [
        ("s3://bucket/x", "s3fs", "s3"),
        ("s3a://bucket/x", "s3fs", "s3"),
        ("gs://bucket/x", "gcsfs", "gcs"),
        ("gcs://bucket/x", "gcsfs", "gcs"),
        ("https://host/x", "aiohttp", "http"),
        ("http://host/x", "aiohttp", "http"),
        ("hf://user/model/x", "huggingface_hub", "hf"),
    ],
)
def test_missing_package_names_extra(monkeypatch, url, package, extra):
    protocol = url.partition("://")[0]
    module = known_implementations[protocol]["class"].rpartition(".")[0]
    for name in (package, module):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(_registry, protocol, raising=False)

    for call in (storage.exists, storage.read_bytes, storage.list_folders, storage.is_local):
        with pytest.raises(OSError) as caught:
            call(url)
        assert str(caught.value) == (
            f"{url} needs the package {package}: pip install 'afmlib[{extra}]'"
        )


@pytest.mark.parametrize("call", [storage.exists, storage.read_bytes, storage.remove_folder])
def test_misspelled_protocol_gets_suggestion(call):
    with pytest.raises(ValueError, match=r"s4://b/x .*protocol .*Did you mean s3://\?.* memory"):
        call("s4://b/x")


def test_missing_bucket_raises(s3_folder):
    path = f"s3://missing-{uuid.uuid4()}/run/x"

    with pytest.raises(FileNotFoundError, match=f"{path}: The specified bucket does not exist"):
        storage.write_atomically(path, b"1")

    assert not storage.exists(path)
    assert storage.list_folders(path) == []
    assert "missing" not in "".join(fsspec.filesystem("s3").ls("", refresh=True))


def test_network_down_raises_os_error(s3_folder, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    urls = [s3_folder, "http://127.0.0.1:9/run"]

    for url in urls:
        for call in (storage.exists, storage.list_folders, storage.read_bytes):
            with pytest.raises(OSError, match=f"^{url}: ") as caught:
                call(url)
            assert not isinstance(caught.value, FileNotFoundError)
            assert "\n" not in str(caught.value)

    fsspec.get_filesystem_class("s3").clear_instance_cache()


def test_listings_are_not_cached(s3_folder):
    program = (
        "import sys; from afmlib.io import storage; url = sys.argv[1]\n"
        "assert storage.list_folders(url) == ['a']\n"
        "storage.remove_folder(url + '/a')\n"
        "storage.write_atomically(url + '/b/file', b'theirs')\n"
    )
    storage.write_atomically(f"{s3_folder}/a/file", b"ours")
    assert storage.list_folders(s3_folder) == ["a"]  # From here on it could be in a cache,
    assert storage.list_files(f"{s3_folder}/a") == ["file"]  # and this too.

    subprocess.run([sys.executable, "-c", program, s3_folder], check=True)  # By the environment.

    assert storage.list_folders(s3_folder) == ["b"]
    assert not storage.exists(f"{s3_folder}/a/file")
    assert storage.exists(f"{s3_folder}/b/file")


def test_web_server_is_read_only(web, tmp_path):
    storage.write_atomically(str(tmp_path / "run" / "10" / "file"), b"1")
    storage.write_atomically(str(tmp_path / "run" / "file"), b"2")

    assert storage.exists(f"{web}/run/10/file")
    assert not storage.exists(f"{web}/run/11/file")
    assert storage.read_bytes(f"{web}/run/file") == b"2"
    assert storage.list_folders(f"{web}/run") == ["10"]
    assert storage.list_files(f"{web}/run") == ["file"]
    assert storage.list_folders(f"{web}/nowhere") == []
    assert not storage.is_local(web)
    for call in (
        lambda: storage.write_atomically(f"{web}/run/file", b"3"),
        lambda: storage.remove_file(f"{web}/run/file"),
        lambda: storage.remove_folder(f"{web}/run"),
        lambda: storage.rename_folder(f"{web}/run", f"{web}/new"),
    ):
        with pytest.raises(OSError, match=r"http://.*read-only"):
            call()
    assert storage.read_bytes(f"{web}/run/file") == b"2"


# --- Whole or not at all ---


@pytest.mark.parametrize("failure", [no_space, interrupt])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_failed_write_keeps_old_file(tmp_path, monkeypatch, call, failure):
    path = tmp_path / "state"
    storage.write_atomically(str(path), b"before")
    monkeypatch.setattr(storage.os, call, failure)

    with pytest.raises((OSError, KeyboardInterrupt)):
        storage.write_atomically(str(path), b"after")

    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["state"]
    assert path.read_bytes() == b"before"


def test_full_disk_keeps_old_file(tmp_path, monkeypatch):
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


def test_interrupt_after_rename(tmp_path, monkeypatch):
    replace = os.replace

    def replace_and_interrupt(*paths):
        replace(*paths)
        raise KeyboardInterrupt

    monkeypatch.setattr(storage.os, "replace", replace_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        storage.write_atomically(str(tmp_path / "state"), b"after")

    assert (tmp_path / "state").read_bytes() == b"after"


def test_content_is_synced_before_rename(tmp_path, monkeypatch):
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


def test_readers_never_see_partial_file(tmp_path):
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
def test_default_permissions(tmp_path, mask):
    before = os.umask(mask)
    try:
        storage.write_atomically(str(tmp_path / "ours"), b"1")
        (tmp_path / "plain").write_bytes(b"1")
        assert os.umask(mask) == mask  # It was put back.
    finally:
        os.umask(before)

    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("ours", "plain")]
    assert modes == [0o666 & ~mask] * 2


@pytest.mark.parametrize("protocol", ["dir", "reference", "cached", "github", "generic"])
def test_protocols_that_need_settings_are_named(protocol):
    with pytest.raises(
        ValueError, match=f"{protocol}://x cannot be opened: .* needs settings"
    ) as e:
        storage.exists(f"{protocol}://x")

    assert "NoneType" not in str(e.value)
    assert "Use one of file, memory, s3" in str(e.value)
