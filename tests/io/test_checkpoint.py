"""Tests for afmlib.io.checkpoint."""

import contextlib
import errno
import hashlib
import itertools
import json
import logging
import shutil
import subprocess
import sys
import uuid

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from afmlib.io import checkpoint, storage
from afmlib.io.checkpoint import (
    CheckpointError,
    checkpoint_folders,
    find_checkpoint,
    is_complete,
    load_tensors,
    load_training_state,
    newest_valid,
    read_config,
    read_manifest,
    remove_old,
    save_checkpoint,
    set_aside,
)

FILES = ["generator.safetensors", "discriminator.safetensors", "training.pt", "config.yaml"]
DTYPES = [
    torch.float32,
    torch.float64,
    torch.bfloat16,
    torch.float16,
    torch.int64,
    torch.uint8,
    torch.bool,
]


def names_in(work_dir):
    return sorted((int(path.name) for path in (work_dir / "checkpoints").iterdir()), reverse=True)


# --- The way there and back ---


@pytest.fixture(params=["disk", "memory", "s3"])
def run(request, tmp_path):
    """The folder of a run: on a disk, in memory, and on an object store."""
    if request.param == "disk":
        return str(tmp_path)
    if request.param == "memory":
        return f"memory://checkpoint-tests/{uuid.uuid4()}"
    return request.getfixturevalue("s3_folder")


def test_roundtrip(save, networks, assert_same_tensors, run):
    folder = storage.join(run, "checkpoints", "100")
    save(folder)

    for network, state in networks.items():
        assert_same_tensors(load_tensors(folder, network), state)
    loaded = load_training_state(folder)
    assert torch.equal(loaded.pop("rng"), torch.arange(5))
    assert loaded == {"num_images": 100, "nested": {"betas": (0.0, 0.9), "ok": None}}
    manifest = read_manifest(folder)
    assert manifest["num_images"] == 100
    assert sorted(manifest["files"]) == sorted(FILES)
    assert storage.read_bytes(storage.join(folder, "config.yaml")) == b"seed: 0\n"


@given(
    st.sampled_from(DTYPES),
    st.lists(st.integers(0, 3), max_size=3),
    st.binary(min_size=8 * 27, max_size=8 * 27),
)
def test_tensor_roundtrip_is_bit_exact(assert_same_tensors, dtype, shape, content):
    count = torch.Size(shape).numel()
    if dtype == torch.bool:
        tensor = torch.tensor([byte % 2 for byte in content[:count]], dtype=torch.bool)
    else:  # Any bits: not-a-numbers, infinities and denormal numbers among them.
        tensor = torch.frombuffer(bytearray(content), dtype=dtype)[:count]
    tensor = tensor.reshape(shape)

    save_checkpoint("memory://checkpoint-tests/bits", {"generator": {"x": tensor}}, {}, "", {})

    assert_same_tensors(load_tensors("memory://checkpoint-tests/bits", "generator"), {"x": tensor})


def test_shared_and_strided_tensors(assert_same_tensors, tmp_path):
    base = torch.randn(2, 3, 4, 4)
    state = {
        "base": base,
        "tied": base,
        "row": base[1],
        "transposed": base.transpose(0, 1),
        "channels_last": base.clone(memory_format=torch.channels_last),
        "strided": base[..., ::2],
        "expanded": torch.ones(1).expand(3),
        "trained": base.clone().requires_grad_(),
    }

    save_checkpoint(str(tmp_path), {"generator": state}, {}, "", {})

    expected = {name: tensor.detach() for name, tensor in state.items()}
    assert_same_tensors(load_tensors(str(tmp_path), "generator"), expected)


def test_loaded_tensors_are_independent(save, networks, assert_same_tensors, tmp_path):
    save(tmp_path)

    load_tensors(str(tmp_path), "generator")["weight"].zero_()

    assert_same_tensors(load_tensors(str(tmp_path), "generator"), networks["generator"])


# --- Which one ---


def test_no_manifest_no_checkpoint(save, tmp_path):
    folder = tmp_path / "checkpoints" / "100"
    save(folder)
    (folder / "manifest.json").unlink()

    with pytest.raises(CheckpointError, match=r"is not a checkpoint: it has no manifest\.json"):
        read_manifest(str(folder))
    with pytest.raises(CheckpointError, match="There is no checkpoint in"):
        find_checkpoint(str(tmp_path))
    with pytest.raises(CheckpointError, match="There is no checkpoint in"):
        find_checkpoint(str(folder))


class Killed(BaseException):
    """Stands for a kill: no cleanup code runs."""


@pytest.fixture
def kill():
    """Kills the process before it has written so many files, and after the last."""
    write = storage.write_atomically

    def install(written):
        count = 0

        def killed(path, content):
            nonlocal count
            if count == written:
                raise Killed
            count += 1
            write(path, content)

        patch.setattr(storage, "write_atomically", killed)
        patch.setattr(checkpoint, "_remove", lambda *_: None)

    with pytest.MonkeyPatch.context() as patch:
        yield install


@pytest.mark.parametrize("written", range(6))
def test_kill_while_saving(save, run, kill, written):
    folders = [storage.join(run, "checkpoints", name) for name in ("100", "200")]
    save(folders[0])

    kill(written)
    if written < 5:
        with pytest.raises(Killed):
            save(folders[1])
    else:
        save(folders[1])

    assert find_checkpoint(run) == folders[written == 5]


@pytest.mark.parametrize("written", range(6))
def test_kill_while_rewriting(save, networks, run, kill, caplog, written):
    folders = [storage.join(run, "checkpoints", name) for name in ("100", "200")]
    for folder in folders:
        save(folder)
    others = {
        name: {key: tensor + 1 for key, tensor in state.items()} for name, state in networks.items()
    }

    kill(written)
    with contextlib.suppress(Killed):
        manifest = {"num_images": 200}
        save_checkpoint(folders[1], others, manifest, "seed: 1\n", manifest)

    assert is_complete(folders[1]) == (written == 5)
    assert find_checkpoint(run) == folders[written == 5]
    assert "corrupt" not in caplog.text
    kill(100)
    save(folders[1])  # The next attempt makes it whole.
    assert find_checkpoint(run) == folders[1]


def test_temporaries_of_killed_run_are_removed(save, tmp_path):
    folder = tmp_path / "checkpoints" / "100"
    folder.mkdir(parents=True)
    (folder / "tmp123.part").write_bytes(b"half of a file")

    save(folder)

    assert sorted(path.name for path in folder.iterdir()) == sorted([*FILES, "manifest.json"])


# --- A write that fails ---


@pytest.mark.parametrize("written", range(5))
def test_failed_write_removes_checkpoint(save, run, monkeypatch, written):
    folders = [storage.join(run, "checkpoints", name) for name in ("100", "200")]
    save(folders[0])
    write, count = storage.write_atomically, 0

    def full(path, content):
        nonlocal count
        if count == written:
            raise OSError(errno.ENOSPC, "No space left on device")
        count += 1
        write(path, content)

    monkeypatch.setattr(storage, "write_atomically", full)
    with pytest.raises(OSError, match="No space left"):
        save(folders[1])

    assert checkpoint_folders(run) == folders[:1]
    assert find_checkpoint(run) == folders[0]


def test_cleanup_error_does_not_hide_failure(save, tmp_path, monkeypatch):
    def fail(path, *_):
        raise OSError(f"{path} failed")

    save(tmp_path / "100")
    monkeypatch.setattr(storage, "write_atomically", fail)
    monkeypatch.setattr(storage, "remove_folder", fail)
    with pytest.raises(OSError, match=r"200/generator\.safetensors failed"):
        save(tmp_path / "200")


def test_failed_checkpoint_keeps_other_files(save, tmp_path, monkeypatch):
    (tmp_path / "notes.txt").write_text("mine")
    monkeypatch.setattr(checkpoint.json, "dumps", lambda *_, **__: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        save(tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


FULL_DISK = """
import resource, signal, sys, torch
from afmlib.io.checkpoint import save_checkpoint
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
large = {"x": torch.zeros(300_000)}
for networks, training in (({"generator": large}, {}), ({"generator": {}}, large)):
    try:
        save_checkpoint(sys.argv[1], networks, training, "", {})
    except OSError as error:
        print(error.strerror)
"""


def test_full_disk_keeps_old_checkpoints(save, tmp_path):
    pytest.importorskip("resource")
    last, new = tmp_path / "checkpoints" / "100", tmp_path / "checkpoints" / "200"
    save(last)

    result = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(new)], capture_output=True, text=True, check=True
    )

    assert result.stdout.splitlines() == ["File too large"] * 2, result.stderr
    assert not new.exists()
    assert find_checkpoint(str(tmp_path)) == str(last)
    assert set(load_tensors(str(last), "generator")) == {"weight", "bias"}


def test_newest_has_most_images(save, tmp_path):
    for name in ("900", "1000", "80", "notes", "²"):
        save(tmp_path / "checkpoints" / name)

    names = [folder.rsplit("/", 1)[-1] for folder in checkpoint_folders(str(tmp_path))]

    assert names == ["1000", "900", "80"]
    assert find_checkpoint(str(tmp_path)).endswith("/1000")
    assert checkpoint_folders(str(tmp_path / "nowhere")) == []


def test_corrupt_checkpoint_is_skipped_with_warning(save, tmp_path, caplog):
    for name in ("100", "200", "300"):
        save(tmp_path / "checkpoints" / name)
    (tmp_path / "checkpoints" / "300" / "manifest.json").unlink()
    damaged = tmp_path / "checkpoints" / "200" / "discriminator.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-3])

    with caplog.at_level(logging.WARNING, logger="afmlib"):
        found = find_checkpoint(str(tmp_path))

    assert found == str(tmp_path / "checkpoints" / "100")
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert f"{tmp_path}/checkpoints/300 is not a checkpoint" in caplog.records[0].getMessage()
    assert f"{damaged} is corrupt" in caplog.records[1].getMessage()


def test_find_checkpoint_by_folder(save, tmp_path):
    save(tmp_path / "anywhere")

    assert find_checkpoint(str(tmp_path / "anywhere")) == str(tmp_path / "anywhere")


def test_read_from_web_server(save, networks, assert_same_tensors, web, tmp_path):
    save(tmp_path / "run" / "checkpoints" / "100")
    save(tmp_path / "run" / "checkpoints" / "000000200")

    assert find_checkpoint(f"{web}/run/checkpoints/100") == f"{web}/run/checkpoints/100"
    folder = find_checkpoint(f"{web}/run")  # The server lists its folders.

    assert folder == f"{web}/run/checkpoints/000000200"
    assert_same_tensors(load_tensors(folder, "generator"), networks["generator"])
    with pytest.raises(CheckpointError, match="There is no checkpoint in"):
        find_checkpoint(f"{web}/nowhere")


# --- Setting aside ---


def damage(folder):
    storage.write_atomically(storage.join(folder, "training.pt"), b"damaged")


def test_newer_corrupt_checkpoints_are_set_aside(save, run, caplog):
    paths = {count: storage.join(run, "checkpoints", str(count)) for count in range(100, 700, 100)}
    for folder in paths.values():
        save(folder)
    for count in (200, 400, 500):
        damage(paths[count])
    storage.remove_file(storage.join(paths[600], "manifest.json"))

    with caplog.at_level(logging.WARNING, logger="afmlib"):
        newest, damaged = newest_valid(run)

    assert newest == paths[300]
    assert damaged == [paths[500], paths[400]]
    assert all("training.pt is corrupt" in record.getMessage() for record in caplog.records)
    assert find_checkpoint(run) == paths[300]
    renamed = set_aside(damaged)
    assert renamed == [paths[500] + ".damaged", paths[400] + ".damaged"]
    names = [folder.rsplit("/", 1)[-1] for folder in checkpoint_folders(run)]
    assert names == ["600", "300", "200", "100"]
    assert storage.read_bytes(storage.join(renamed[0], "training.pt")) == b"damaged"
    assert find_checkpoint(run) == paths[300]
    assert newest_valid(run) == (paths[300], [])


def test_set_aside_replaces_only_same_name(save, tmp_path):
    folders = [tmp_path / "checkpoints" / name for name in ("100", "200")]
    for mark in (b"first", b"second"):
        for folder in folders:
            save(folder)
        (folders[1] / "training.pt").write_bytes(mark)
        set_aside(newest_valid(str(tmp_path))[1])
    save(tmp_path / "checkpoints" / "300")

    remove_old(str(tmp_path), keep_last=1, keep_every=None)

    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["200.damaged", "300"]
    assert (tmp_path / "checkpoints/200.damaged/training.pt").read_bytes() == b"second"


def test_no_valid_checkpoint_raises(save, tmp_path):
    save(tmp_path / "checkpoints" / "100")
    damage(str(tmp_path / "checkpoints" / "100"))

    assert newest_valid(str(tmp_path / "nowhere")) == (None, [])
    with pytest.raises(CheckpointError, match=r"No checkpoint in .* is valid: .*is corrupt"):
        newest_valid(str(tmp_path))
    with pytest.raises(CheckpointError, match="There is no checkpoint in"):
        find_checkpoint(str(tmp_path))
    assert names_in(tmp_path) == [100]


@pytest.mark.parametrize("call", [newest_valid, find_checkpoint])
def test_unreadable_is_not_corrupt(save, tmp_path, monkeypatch, call):
    for name in ("100", "200"):
        save(tmp_path / "checkpoints" / name)
    read = storage.open_to_read

    def unreachable(path):
        if "200/training" in path:
            raise OSError("The network is down")
        return read(path)

    monkeypatch.setattr(storage, "open_to_read", unreachable)
    with pytest.raises(OSError, match="The network is down"):
        call(str(tmp_path))

    assert names_in(tmp_path) == [200, 100]


def test_unneeded_files_may_be_corrupt(save, tmp_path):
    folders = [str(tmp_path / "checkpoints" / name) for name in ("100", "200")]
    for folder in folders:
        save(folder)
    damage(folders[1])

    assert find_checkpoint(str(tmp_path), ["config.yaml", "generator.safetensors"]) == folders[1]
    assert find_checkpoint(str(tmp_path)) == folders[0]


def test_read_config(save, tmp_path):
    folder = str(tmp_path / "checkpoints" / "100")
    save(folder)
    path = storage.join(folder, "config.yaml")
    stored = storage.read_bytes(path)

    assert read_config(folder) == stored.decode()
    storage.write_atomically(path, stored[:-1])
    with pytest.raises(CheckpointError, match=r"config\.yaml is corrupt"):
        read_config(folder)


def test_binary_config_raises(tmp_path):
    folder = str(tmp_path / "100")
    save_checkpoint(folder, {}, {}, "seed: 0\n", {})
    manifest = read_manifest(folder)
    manifest["files"]["config.yaml"] = hashlib.sha256(b"\xff").hexdigest()
    manifest["checksum"] = checkpoint._checksum(manifest)
    storage.write_atomically(storage.join(folder, "config.yaml"), b"\xff")
    storage.write_atomically(storage.join(folder, "manifest.json"), json.dumps(manifest).encode())

    with pytest.raises(CheckpointError, match=r"config\.yaml is corrupt: 'utf-8'"):
        read_config(folder)


def test_manifest_folder_raises(save, tmp_path):
    for name in ("100", "200"):
        save(tmp_path / "checkpoints" / name)
    (tmp_path / "checkpoints/200/manifest.json").unlink()
    (tmp_path / "checkpoints/200/manifest.json").mkdir()

    assert find_checkpoint(str(tmp_path)).endswith("/100")


# --- Removing old checkpoints ---


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=6, unique=True),
    st.integers(1, 4),
    st.none() | st.integers(1, 20),
)
def test_remove_old_keeps_newest_and_periodic(counts, keep_last, keep_every):
    folder = "memory://checkpoint-tests/kept"
    storage.remove_folder(folder)
    for count in counts:
        save_checkpoint(f"{folder}/checkpoints/{count}", {}, {}, "", {})

    remove_old(folder, keep_last, keep_every)

    expected = set(sorted(counts)[-keep_last:])
    if keep_every is not None:
        expected |= first_after_multiples(sorted(counts), keep_every)
    assert {int(name.rsplit("/", 1)[-1]) for name in checkpoint_folders(folder)} == expected


def first_after_multiples(counts, every):
    """Returns the first count at or after each multiple, by going through all numbers."""
    multiples = range(every, max(counts, default=0) + 1, every)
    return {next(count for count in counts if count >= multiple) for multiple in multiples}


@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=12),
    st.integers(1, 3),
    st.integers(1, 100),
)
def test_periodic_checkpoints_stay_during_run(steps, keep_last, keep_every):
    folder = "memory://checkpoint-tests/rolling"
    storage.remove_folder(folder)
    counts = list(itertools.accumulate(steps))

    for count in counts:
        save_checkpoint(f"{folder}/checkpoints/{count}", {}, {}, "", {})
        remove_old(folder, keep_last, keep_every)

    expected = {*counts[-keep_last:], *first_after_multiples(counts, keep_every)}
    assert {int(name.rsplit("/", 1)[-1]) for name in checkpoint_folders(folder)} == expected


def test_incomplete_checkpoints_are_removed(save, tmp_path):
    for count in (100, 200, 300, 400):
        save(tmp_path / "checkpoints" / str(count))
    for torn in (200, 400):
        (tmp_path / "checkpoints" / str(torn) / "manifest.json").unlink()

    remove_old(str(tmp_path), keep_last=1, keep_every=200)

    assert names_in(tmp_path) == [400, 300]  # 400 may be just being written.
    assert find_checkpoint(str(tmp_path)).endswith("/300")


@pytest.mark.parametrize("numbers", [(0, None), (-1, None), (1, 0)])
def test_keep_last_must_be_positive(save, tmp_path, numbers):
    save(tmp_path / "checkpoints" / "100")

    with pytest.raises(ValueError, match="must be at least 1"):
        remove_old(str(tmp_path), *numbers)
    assert names_in(tmp_path) == [100]


# --- Symbolic links ---


@pytest.fixture
def linked(save, tmp_path):
    """A run whose checkpoints are links into an archive."""
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    for name in ("100", "200", "300"):
        save(tmp_path / "archive" / name)
        (tmp_path / "run/checkpoints" / name).symlink_to(tmp_path / "archive" / name)
    return tmp_path / "run"


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_linked_checkpoints_are_found(linked):
    folders = [f"{linked}/checkpoints/{name}" for name in ("300", "200", "100")]

    assert checkpoint_folders(str(linked)) == folders
    assert newest_valid(str(linked)) == (folders[0], [])
    assert find_checkpoint(str(linked)) == folders[0]


def test_target_of_link_is_not_changed(linked, save):
    archive = content(linked.parent / "archive")

    save(linked / "checkpoints/300")
    remove_old(str(linked), keep_last=1, keep_every=None)

    assert names_in(linked) == [300]
    assert not (linked / "checkpoints/300").is_symlink()
    assert content(linked.parent / "archive") == archive


@pytest.mark.parametrize("missing", ["target", "manifest", "linked manifest"])
def test_unreadable_link_is_no_new_run(save, tmp_path, missing):
    folder = tmp_path / "checkpoints/000000100"
    folder.parent.mkdir()
    if missing == "linked manifest":
        folder.mkdir()
        (folder / "manifest.json").symlink_to(tmp_path / "nowhere")
    else:
        folder.symlink_to(tmp_path / "archive")
    if missing == "manifest":
        (tmp_path / "archive").mkdir()

    with pytest.raises(CheckpointError, match=rf"{folder}.*name another folder"):
        newest_valid(str(tmp_path))


def test_unreadable_link_is_skipped(save, tmp_path):
    save(tmp_path / "checkpoints/100")
    link = tmp_path / "checkpoints/200"
    link.symlink_to(tmp_path / "nowhere")

    newest, corrupt = newest_valid(str(tmp_path))

    assert (newest, corrupt) == (str(tmp_path / "checkpoints/100"), [str(link)])
    assert set_aside(corrupt) == [f"{link}.damaged"]
    assert not link.is_symlink()


def test_missing_target_of_all_checkpoints_raises(tmp_path):
    (tmp_path / "checkpoints").symlink_to(tmp_path / "nowhere")

    with pytest.raises(CheckpointError, match="symbolic link whose target is missing"):
        newest_valid(str(tmp_path))


# --- Names ---


def test_renamed_checkpoint_is_corrupt(save, tmp_path, caplog):
    right, wrong = tmp_path / "checkpoints/000000192", tmp_path / "checkpoints/000000999"
    save(right)
    shutil.copytree(right, wrong)

    assert newest_valid(str(tmp_path)) == (str(right), [str(wrong)])
    assert find_checkpoint(str(tmp_path)) == str(right)
    with pytest.raises(CheckpointError, match=r"000000999 .* its manifest is of 192 images"):
        load_tensors(str(wrong), "generator")


def test_half_removed_checkpoint_is_invalid(save, tmp_path, monkeypatch):
    for name in ("100", "200"):
        save(tmp_path / "checkpoints" / name)

    def killed(path):
        raise Killed

    monkeypatch.setattr(storage, "remove_folder", killed)
    with pytest.raises(Killed):
        remove_old(str(tmp_path), keep_last=1, keep_every=None)

    assert [is_complete(folder) for folder in checkpoint_folders(str(tmp_path))] == [True, False]
