"""Tests for afmlib.io.checkpoint: corrupt and hostile files."""

import hashlib
import io
import json
import os
import pickle

import fsspec
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from afmlib.io import storage
from afmlib.io.checkpoint import (
    CheckpointError,
    find_checkpoint,
    load_tensors,
    load_training_state,
    read_config,
    read_manifest,
    save_checkpoint,
)

FILES = ["generator.safetensors", "discriminator.safetensors", "training.pt", "config.yaml"]


def tamper(folder, name, content):
    """Replaces a file by another, and its checksum as well."""
    (folder / name).write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = hashlib.sha256(content).hexdigest()
    del manifest["checksum"]
    text = json.dumps(manifest, sort_keys=True)
    manifest["checksum"] = hashlib.sha256(text.encode()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))


# --- Damage ---


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["truncated", "flipped", "emptied", "missing", "extended"])
def test_corrupt_file_is_named(save, tmp_path, name, damage):
    folder = tmp_path / "checkpoints" / "100"
    save(folder)
    content = bytearray((folder / name).read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 1
    changed = {
        "truncated": content[:-1],
        "flipped": content,
        "emptied": b"",
        "extended": content + b"\0",
    }
    if damage == "missing":
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(changed[damage])

    complaint = f"{name} is {'missing' if damage == 'missing' else 'corrupt'}"
    if name.endswith(".safetensors"):
        with pytest.raises(CheckpointError, match=complaint):
            load_tensors(str(folder), name.removesuffix(".safetensors"))
    if name == "training.pt":
        with pytest.raises(CheckpointError, match=complaint):
            load_training_state(str(folder))
    with pytest.raises(CheckpointError, match="There is no checkpoint"):
        find_checkpoint(str(tmp_path))


@pytest.fixture(scope="module")
def whole(save):
    """The files of a checkpoint, by name."""
    folder = "memory://checkpoint-tests/whole"
    save(folder)
    return {
        name: storage.read_bytes(storage.join(folder, name)) for name in [*FILES, "manifest.json"]
    }


@given(data=st.data())
def test_mutated_file_raises_or_is_equal(networks, assert_same_tensors, whole, data):
    name = data.draw(st.sampled_from(sorted(whole)))
    content = whole[name]
    start = data.draw(st.integers(0, len(content)))
    stop = data.draw(st.integers(start, min(len(content), start + 8)))
    damaged = content[:start] + data.draw(st.binary(max_size=8)) + content[stop:]
    if data.draw(st.booleans()):
        damaged = damaged[: data.draw(st.integers(0, len(damaged)))]
    folder = "memory://checkpoint-tests/mutated/checkpoints/100"
    fsspec.filesystem("memory").pipe({f"{folder}/{file}": whole[file] for file in whole})
    fsspec.filesystem("memory").pipe_file(f"{folder}/{name}", damaged)

    for network, expected in networks.items():
        try:
            state = load_tensors(folder, network)
        except CheckpointError:
            continue
        assert_same_tensors(state, expected)
    try:
        state = load_training_state(folder)
    except CheckpointError:
        pass
    else:
        assert state["num_images"] == 100
        assert torch.equal(state["rng"], torch.arange(5))
    try:
        assert find_checkpoint("memory://checkpoint-tests/mutated") == folder
    except CheckpointError:
        assert damaged != content


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is corrupt"),
        ("{", "is corrupt"),
        ("[" * 100_000, "is corrupt"),
        ("[]", "lists no files"),
        ('{"format": 1}', "lists no files"),
        ('{"format": 1, "files": []}', "lists no files"),
        ('{"files": {}}', "has format None; this version reads 1"),
        ('{"format": true, "files": {}}', "has format True; this version reads 1"),
        ('{"format": 2, "files": {}}', "has format 2; this version reads 1"),
        ('{"format": 1, "files": {"../secret": ""}}', "it lists '../secret' as a file"),
        ('{"format": 1, "files": {"x::http://host/y": ""}}', "as a file"),
        ('{"format": 1, "files": {"": ""}}', "it lists '' as a file"),
    ],
)
def test_invalid_manifest_raises(tmp_path, text, message):
    (tmp_path / "manifest.json").write_text(text)

    with pytest.raises(CheckpointError, match=message):
        read_manifest(str(tmp_path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_images": True}, "its num_images is True, not of int"),
        ({"num_images": 100.0}, "its num_images is 100.0, not of int"),
        ({"num_samples": "10"}, "its num_samples is '10', not of int"),
        ({"class_names": ["a", 1]}, "not all of str"),
        ({"snapshots": [True]}, "not all of int"),
        ({"conventions": []}, "its conventions is"),
        ({"conventions": {"nfe": True}}, "its nfe is True, not of int"),
        ({"conventions": {"any_nfe": 0}}, "its any_nfe is 0, not of bool"),
        ({"conventions": {"num_classes": 1.5}}, "its num_classes is 1.5, not of int or NoneType"),
    ],
)
def test_types_of_manifest_are_strict(tmp_path, change, message):
    save_checkpoint(str(tmp_path), {}, None, None, {"num_images": 100, **change})

    with pytest.raises(CheckpointError, match=message):
        read_manifest(str(tmp_path))


def test_missing_network_names_others(save, tmp_path):
    save(tmp_path)

    with pytest.raises(CheckpointError, match=r"no classifier.safetensors.*It has.*generator"):
        load_tensors(str(tmp_path), "classifier")


# --- Code ---


class Payload:
    """Runs a command when it is unpickled."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def torch_file(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def pickle_file(value):
    return pickle.dumps(value, protocol=2)  # The protocol of torch; others warn.


@pytest.mark.parametrize("pack", [pickle_file, torch_file])
def test_code_in_training_state_is_not_run(save, tmp_path, pack):
    marker = tmp_path / "was-run"
    content = pack({"num_images": Payload(f"touch {marker}")})
    folder = tmp_path / "100"
    save(folder)
    tamper(folder, "training.pt", content)

    with pytest.raises(CheckpointError, match=r"training\.pt is corrupt or holds more"):
        load_training_state(str(folder))
    assert not marker.exists()

    pickle.loads(pickle.dumps(Payload(f"touch {marker}")))
    assert marker.exists()  # The payload is one.


@pytest.mark.parametrize("content", [b"", b"no archive", pickle.dumps({"a": 1}), b"\x80\x02."])
def test_foreign_tensors_raise(save, tmp_path, content):
    save(tmp_path)
    tamper(tmp_path, "generator.safetensors", content)

    with pytest.raises(CheckpointError, match=r"generator\.safetensors is corrupt"):
        load_tensors(str(tmp_path), "generator")


@pytest.mark.parametrize("content", [b"", b"no archive", b"\x80\x02.", b"PK\x03\x04"])
def test_foreign_training_state_raises(save, tmp_path, content):
    save(tmp_path)
    tamper(tmp_path, "training.pt", content)

    with pytest.raises(CheckpointError, match=r"training\.pt"):
        load_training_state(str(tmp_path))


# --- Bounds ---


@pytest.mark.parametrize("name", ["manifest.json", *FILES])
def test_only_plain_files_are_read(save, tmp_path, name):
    folder = tmp_path / "checkpoints" / "100"
    save(folder)
    (folder / name).unlink()
    os.mkfifo(folder / name)

    with pytest.raises(OSError, match=f"{name} is a FIFO, not a plain file"):
        find_checkpoint(str(tmp_path))


def test_manifest_and_config_have_a_size_limit(save, tmp_path, monkeypatch):
    save(tmp_path)
    monkeypatch.setattr("afmlib.io.checkpoint.MAX_MANIFEST", 5000)
    tamper(tmp_path, "config.yaml", b" " * 5001)

    with pytest.raises(CheckpointError, match=r"config\.yaml is corrupt: it has more than 5000"):
        read_config(str(tmp_path))
    (tmp_path / "manifest.json").write_bytes(b" " * 5001)
    with pytest.raises(CheckpointError, match=r"manifest\.json is corrupt: .* has 5001 bytes"):
        read_manifest(str(tmp_path))


def test_weights_larger_than_memory_are_an_error(save, tmp_path, monkeypatch):
    save(tmp_path)
    monkeypatch.setattr("afmlib.io.bounds.ALWAYS_FREE", 0)
    monkeypatch.setattr("afmlib.io.bounds.available_memory", lambda: 10)
    monkeypatch.setattr("afmlib.io.storage.memory_shortage", lambda size: "")

    with pytest.raises(CheckpointError, match=r"generator\.safetensors needs .* of memory"):
        load_tensors(str(tmp_path), "generator")
    with pytest.raises(CheckpointError, match=r"training\.pt .* needs .* of memory"):
        load_training_state(str(tmp_path))
