"""Tests for afmlib.io.checkpoint."""

import hashlib
import io
import json
import logging
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
    checkpoint_folders,
    find_checkpoint,
    load_tensors,
    load_training_state,
    read_manifest,
    remove_old,
    save_checkpoint,
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


@pytest.fixture(scope="module", autouse=True)
def memory():
    """Empties the part of the memory file system that these tests use."""
    yield
    fsspec.filesystem("memory").rm("/checkpoint-tests", recursive=True)


def networks():
    torch.manual_seed(0)
    return {
        "generator": {"weight": torch.randn(3, 4), "bias": torch.randn(3).bfloat16()},
        "discriminator": {"average": torch.tensor(0.25, dtype=torch.float64)},
    }


def training():
    return {"num_images": 100, "rng": torch.arange(5), "nested": {"betas": (0.0, 0.9), "ok": None}}


def save(folder):
    save_checkpoint(str(folder), networks(), training(), "seed: 0\n", {"num_images": 100})


def bits(tensor):
    return tensor.contiguous().reshape(-1).view(torch.uint8).tolist()


def assert_same_tensors(state, expected):
    assert set(state) == set(expected)
    for name, tensor in expected.items():
        assert state[name].dtype == tensor.dtype
        assert state[name].shape == tensor.shape
        assert bits(state[name]) == bits(tensor)


def tamper(folder, name, content):
    """Replaces a file by another, and its checksum as well."""
    (folder / name).write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = hashlib.sha256(content).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))


# --- The way there and back ---


@pytest.mark.parametrize("root", ["disk", "memory"])
def test_all_comes_back_as_it_was(root, tmp_path):
    folder = str(tmp_path / "run") if root == "disk" else "memory://checkpoint-tests/run"
    save(folder)

    for network, state in networks().items():
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
def test_every_bit_of_a_tensor_comes_back(dtype, shape, content):
    count = torch.Size(shape).numel()
    if dtype == torch.bool:
        tensor = torch.tensor([byte % 2 for byte in content[:count]], dtype=torch.bool)
    else:  # Any bits: not-a-numbers, infinities and denormal numbers among them.
        tensor = torch.frombuffer(bytearray(content), dtype=dtype)[:count]
    tensor = tensor.reshape(shape)

    save_checkpoint("memory://checkpoint-tests/bits", {"generator": {"x": tensor}}, {}, "", {})

    assert_same_tensors(load_tensors("memory://checkpoint-tests/bits", "generator"), {"x": tensor})


def test_tensors_may_share_memory_and_lie_in_any_order(tmp_path):
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


def test_loaded_tensors_are_ones_own(tmp_path):
    save(tmp_path)

    load_tensors(str(tmp_path), "generator")["weight"].zero_()

    assert_same_tensors(load_tensors(str(tmp_path), "generator"), networks()["generator"])


# --- Damage ---


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["truncated", "flipped", "emptied", "missing", "extended"])
def test_a_damaged_file_is_named(tmp_path, name, damage):
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

    complaint = f"{name} is {'missing' if damage == 'missing' else 'damaged'}"
    if name.endswith(".safetensors"):
        with pytest.raises(CheckpointError, match=complaint):
            load_tensors(str(folder), name.removesuffix(".safetensors"))
    if name == "training.pt":
        with pytest.raises(CheckpointError, match=complaint):
            load_training_state(str(folder))
    with pytest.raises(CheckpointError, match="There is no checkpoint"):
        find_checkpoint(str(tmp_path))


@pytest.fixture(scope="module")
def whole():
    """The files of a checkpoint, by name."""
    folder = "memory://checkpoint-tests/whole"
    save(folder)
    return {
        name: storage.read_bytes(storage.join(folder, name)) for name in [*FILES, "manifest.json"]
    }


@given(data=st.data())
def test_whatever_happens_to_a_file_the_result_is_an_error_or_the_same(whole, data):
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

    for network, expected in networks().items():
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
        ("", "is damaged"),
        ("{", "is damaged"),
        ("[" * 100_000, "is damaged"),
        ("[]", "lists no files"),
        ('{"format": 1}', "lists no files"),
        ('{"format": 1, "files": []}', "lists no files"),
        ('{"files": {}}', "has format None; this version reads 1"),
        ('{"format": 2, "files": {}}', "has format 2; this version reads 1"),
        ('{"format": 1, "files": {"../secret": ""}}', "it lists '../secret' as a file"),
        ('{"format": 1, "files": {"x::http://host/y": ""}}', "as a file"),
        ('{"format": 1, "files": {"": ""}}', "it lists '' as a file"),
    ],
)
def test_a_manifest_that_is_none_is_refused(tmp_path, text, message):
    (tmp_path / "manifest.json").write_text(text)

    with pytest.raises(CheckpointError, match=message):
        read_manifest(str(tmp_path))


def test_a_network_that_is_not_there_is_answered_with_those_that_are(tmp_path):
    save(tmp_path)

    with pytest.raises(CheckpointError, match=r"no classifier.safetensors; it has.*generator"):
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
    return pickle.dumps(value, protocol=2)  # What torch writes: others make it warn.


@pytest.mark.parametrize("pack", [pickle_file, torch_file])
def test_code_in_the_training_state_is_refused_and_not_run(tmp_path, pack):
    marker = tmp_path / "was-run"
    content = pack({"num_images": Payload(f"touch {marker}")})
    folder = tmp_path / "100"
    save(folder)
    tamper(folder, "training.pt", content)

    with pytest.raises(CheckpointError, match=r"training\.pt holds more than plain data"):
        load_training_state(str(folder))
    assert not marker.exists()

    pickle.loads(pickle.dumps(Payload(f"touch {marker}")))
    assert marker.exists()  # The payload is one.


@pytest.mark.parametrize("content", [b"", b"no archive", pickle.dumps({"a": 1}), b"\x80\x02."])
def test_a_foreign_file_with_a_right_checksum_is_refused(tmp_path, content):
    save(tmp_path)
    tamper(tmp_path, "generator.safetensors", content)

    with pytest.raises(CheckpointError, match=r"generator\.safetensors is damaged"):
        load_tensors(str(tmp_path), "generator")


@pytest.mark.parametrize("content", [b"", b"no archive", b"\x80\x02.", b"PK\x03\x04"])
def test_a_foreign_training_state_with_a_right_checksum_is_refused(tmp_path, content):
    save(tmp_path)
    tamper(tmp_path, "training.pt", content)

    with pytest.raises(CheckpointError, match=r"training\.pt"):
        load_training_state(str(tmp_path))


# --- Which one ---


def test_without_a_manifest_there_is_no_checkpoint(tmp_path):
    folder = tmp_path / "checkpoints" / "100"
    save(folder)
    (folder / "manifest.json").unlink()

    with pytest.raises(CheckpointError, match=r"is not a checkpoint: it has no manifest\.json"):
        read_manifest(str(folder))
    with pytest.raises(CheckpointError, match="There is no checkpoint in"):
        find_checkpoint(str(tmp_path))
    with pytest.raises(CheckpointError, match="There is no checkpoint in"):
        find_checkpoint(str(folder))


@pytest.mark.parametrize("written", range(6))
def test_a_run_killed_while_saving_has_the_new_checkpoint_or_the_one_before(
    tmp_path, monkeypatch, written
):
    save(tmp_path / "checkpoints" / "100")
    write, count = storage.write_atomically, 0

    def killed(path, content):
        nonlocal count
        if count == written:
            raise KeyboardInterrupt
        count += 1
        write(path, content)

    monkeypatch.setattr(storage, "write_atomically", killed)
    if written < 5:
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path / "checkpoints" / "200")
    else:
        save(tmp_path / "checkpoints" / "200")

    expected = "200" if written == 5 else "100"
    assert find_checkpoint(str(tmp_path)) == str(tmp_path / "checkpoints" / expected)


def test_the_newest_is_the_one_with_most_images(tmp_path):
    for name in ("900", "1000", "80", "notes", "²"):
        save(tmp_path / "checkpoints" / name)

    names = [folder.rsplit("/", 1)[-1] for folder in checkpoint_folders(str(tmp_path))]

    assert names == ["1000", "900", "80"]
    assert find_checkpoint(str(tmp_path)).endswith("/1000")
    assert checkpoint_folders(str(tmp_path / "nowhere")) == []


def test_a_damaged_one_is_named_in_the_log_and_the_one_before_is_taken(tmp_path, caplog):
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
    assert f"{damaged} is damaged" in caplog.records[1].getMessage()


def test_a_checkpoint_is_found_by_its_own_folder(tmp_path):
    save(tmp_path / "anywhere")

    assert find_checkpoint(str(tmp_path / "anywhere")) == str(tmp_path / "anywhere")


# --- What stays ---


def names_in(work_dir):
    return sorted((int(path.name) for path in (work_dir / "checkpoints").iterdir()), reverse=True)


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=6, unique=True),
    st.integers(1, 4),
    st.none() | st.integers(1, 20),
)
def test_the_newest_stay_and_the_periodic_ones(counts, keep_last, keep_every):
    folder = "memory://checkpoint-tests/kept"
    storage.remove_folder(folder)
    for count in counts:
        save_checkpoint(f"{folder}/checkpoints/{count}", {}, {}, "", {})

    remove_old(folder, keep_last, keep_every)

    expected = set(sorted(counts)[-keep_last:])
    if keep_every is not None:
        expected |= {count for count in counts if count % keep_every == 0}
    assert {int(name.rsplit("/", 1)[-1]) for name in checkpoint_folders(folder)} == expected


def test_what_a_killed_run_left_neither_counts_nor_stays(tmp_path):
    for count in (100, 200, 300, 400):
        save(tmp_path / "checkpoints" / str(count))
    for torn in (200, 400):
        (tmp_path / "checkpoints" / str(torn) / "manifest.json").unlink()

    remove_old(str(tmp_path), keep_last=1, keep_every=200)

    assert names_in(tmp_path) == [400, 300]  # 400 may be just being written.
    assert find_checkpoint(str(tmp_path)).endswith("/300")


@pytest.mark.parametrize("numbers", [(0, None), (-1, None), (1, 0)])
def test_keeping_nothing_is_refused(tmp_path, numbers):
    save(tmp_path / "checkpoints" / "100")

    with pytest.raises(ValueError, match="must be at least 1"):
        remove_old(str(tmp_path), *numbers)
    assert names_in(tmp_path) == [100]
