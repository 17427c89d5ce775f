"""Sharded checkpoints of two processes hold, bit by bit, what plain ones hold."""

import pytest
import torch
import two_processes
from forks import run_together

from afmlib import load_checkpoint, sample
from afmlib.cli import main
from afmlib.config import ConfigError, check_config
from afmlib.io.checkpoint import (
    CheckpointError,
    find_checkpoint,
    load_tensors,
    load_training_state,
    read_manifest,
    stored_networks,
)

COUNTS = ("000000008", "000000016", "000000024", "000000032")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two equal runs that were stopped and resumed."""
    folder = tmp_path_factory.mktemp("sharded")
    run_together(folder, two_processes.train_sharded, str(folder))
    return folder


def network_names(folder):
    return sorted(stored_networks(read_manifest(folder)))


def flat(tree, path=()):
    if isinstance(tree, dict):
        return {k: v for key, value in tree.items() for k, v in flat(value, (*path, key)).items()}
    return {path: tree}


def assert_same_checkpoints(one, other):
    names = network_names(str(one))
    kept = ["discriminator", "generator", "generator_ema", "generator_ema_0_5"]
    assert names == network_names(str(other)) == kept
    for name in names:
        pairs = load_tensors(str(one), name), load_tensors(str(other), name)
        assert pairs[0].keys() == pairs[1].keys()
        assert all(torch.equal(pairs[0][key], pairs[1][key]) for key in pairs[0]), name
    states = [flat(load_training_state(str(folder))) for folder in (one, other)]
    assert states[0].keys() == states[1].keys()
    for key, value in states[0].items():
        there = states[1][key]
        assert torch.equal(value, there) if isinstance(value, torch.Tensor) else value == there, key


@pytest.mark.parametrize("count", COUNTS)
def test_content_equals_that_of_plain_checkpoints(folder, count):
    sharded, plain = (folder / name / "checkpoints" / count for name in ("sharded", "plain"))

    files = read_manifest(str(sharded))["files"]
    assert {"generator-00000.safetensors", "optimizers-00001.safetensors"} <= files.keys()
    assert "generator.safetensors" not in files
    sizes = [(sharded / f"generator_ema-0000{rank}.safetensors").stat().st_size for rank in (0, 1)]
    assert max(sizes) < 0.7 * (plain / "generator_ema.safetensors").stat().st_size
    assert_same_checkpoints(sharded, plain)


def test_sample_reads_shards(folder):
    models = [load_checkpoint(str(folder / name)) for name in ("sharded", "plain")]

    assert torch.equal(*(sample(model, [1, 2]) for model in models))


def test_one_process_resumes(folder, tmp_path):
    for name in ("sharded", "plain"):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
        (tmp_path / name / "checkpoints" / COUNTS[1]).symlink_to(
            folder / name / "checkpoints" / COUNTS[1]
        )
        two_processes.train("afm", tmp_path / name, "num_images=24", resume=True)

    assert_same_checkpoints(*(find_checkpoint(str(tmp_path / n)) for n in ("sharded", "plain")))


def test_export_writes_a_plain_checkpoint(folder, tmp_path, capsys):
    out = str(tmp_path / "plain")
    line = ["export", "--format", "checkpoint", "--out", out, "--checkpoint"]

    assert main([*line, str(folder / "sharded")]) == 0

    assert "a plain checkpoint of" in capsys.readouterr().out
    plain = folder / "plain/checkpoints" / COUNTS[-1]
    for name in network_names(str(plain)):
        file = f"{name}.safetensors"
        assert (plain / file).read_bytes() == (tmp_path / "plain" / file).read_bytes()
    assert_same_checkpoints(out, plain)
    assert main([*line, str(folder / "sharded")]) == 2  # It is not empty.


def test_corrupt_shard_is_named(folder, tmp_path):
    import shutil

    copy = tmp_path / "run"
    shutil.copytree(folder / "sharded", copy)
    shard = copy / "checkpoints" / COUNTS[-1] / "discriminator-00001.safetensors"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)

    with pytest.raises(CheckpointError, match=r"discriminator-00001\.safetensors is corrupt"):
        load_tensors(str(shard.parent), "discriminator")
    assert find_checkpoint(str(copy)).endswith(COUNTS[-2])


def test_full_disk_of_one_process_is_an_error_in_all(folder):
    for rank in range(2):
        assert "No space left on device" in (folder / f"full-{rank}.txt").read_text()
    assert not list((folder / "full/checkpoints").iterdir())


def test_shards_need_fsdp():
    with pytest.raises(ConfigError, match="sharded_checkpoints needs distributed: fsdp or hsdp"):
        check_config(two_processes.config_of("afm", "sharded_checkpoints=true"))
