"""Tests for afmlib.io.checkpoint."""

import logging

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


# --- The way there and back ---


@pytest.mark.parametrize("root", ["disk", "memory"])
def test_all_comes_back_as_it_was(save, networks, assert_same_tensors, root, tmp_path):
    folder = str(tmp_path / "run") if root == "disk" else "memory://checkpoint-tests/run"
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
def test_every_bit_of_a_tensor_comes_back(assert_same_tensors, dtype, shape, content):
    count = torch.Size(shape).numel()
    if dtype == torch.bool:
        tensor = torch.tensor([byte % 2 for byte in content[:count]], dtype=torch.bool)
    else:  # Any bits: not-a-numbers, infinities and denormal numbers among them.
        tensor = torch.frombuffer(bytearray(content), dtype=dtype)[:count]
    tensor = tensor.reshape(shape)

    save_checkpoint("memory://checkpoint-tests/bits", {"generator": {"x": tensor}}, {}, "", {})

    assert_same_tensors(load_tensors("memory://checkpoint-tests/bits", "generator"), {"x": tensor})


def test_tensors_may_share_memory_and_lie_in_any_order(assert_same_tensors, tmp_path):
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


def test_loaded_tensors_are_ones_own(save, networks, assert_same_tensors, tmp_path):
    save(tmp_path)

    load_tensors(str(tmp_path), "generator")["weight"].zero_()

    assert_same_tensors(load_tensors(str(tmp_path), "generator"), networks["generator"])


# --- Which one ---


def test_without_a_manifest_there_is_no_checkpoint(save, tmp_path):
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
    save, tmp_path, monkeypatch, written
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


def test_the_newest_is_the_one_with_most_images(save, tmp_path):
    for name in ("900", "1000", "80", "notes", "²"):
        save(tmp_path / "checkpoints" / name)

    names = [folder.rsplit("/", 1)[-1] for folder in checkpoint_folders(str(tmp_path))]

    assert names == ["1000", "900", "80"]
    assert find_checkpoint(str(tmp_path)).endswith("/1000")
    assert checkpoint_folders(str(tmp_path / "nowhere")) == []


def test_a_damaged_one_is_named_in_the_log_and_the_one_before_is_taken(save, tmp_path, caplog):
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


def test_a_checkpoint_is_found_by_its_own_folder(save, tmp_path):
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


def test_what_a_killed_run_left_neither_counts_nor_stays(save, tmp_path):
    for count in (100, 200, 300, 400):
        save(tmp_path / "checkpoints" / str(count))
    for torn in (200, 400):
        (tmp_path / "checkpoints" / str(torn) / "manifest.json").unlink()

    remove_old(str(tmp_path), keep_last=1, keep_every=200)

    assert names_in(tmp_path) == [400, 300]  # 400 may be just being written.
    assert find_checkpoint(str(tmp_path)).endswith("/300")


@pytest.mark.parametrize("numbers", [(0, None), (-1, None), (1, 0)])
def test_keeping_nothing_is_refused(save, tmp_path, numbers):
    save(tmp_path / "checkpoints" / "100")

    with pytest.raises(ValueError, match="must be at least 1"):
        remove_old(str(tmp_path), *numbers)
    assert names_in(tmp_path) == [100]
