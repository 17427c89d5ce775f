"""A run that is killed, at any moment, and started again ends as one that never was."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from afmlib.io.checkpoint import find_checkpoint, load_training_state

MORTAL = str(Path(__file__).with_name("mortal.py"))
TORCHRUN = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
MEASURED = {"images_per_second", "peak_memory_gib"}

SETTINGS = {
    "objective.generator.hidden_size": 16,
    "objective.discriminator.hidden_size": 16,
    "global_batch": 8,
    "num_images": 96,
    "checkpoint_every": 24,
    "sample_every": 32,
    "evaluate_every": 48,
    "evaluation.metrics": "[Diversity]",
    "evaluation.extractor": "null",
    "evaluation.num_samples": 20,
    "log.every": 16,
}


def command(work_dir, kill=("never", 1), rank=0, torchrun=False, **settings):
    """Returns the command that starts or resumes a run, to be killed or not."""
    overrides = [f"--set={key}={value}" for key, value in {**SETTINGS, **settings}.items()]
    launch = TORCHRUN if torchrun else []
    run = ["train", "afm_digits", "--device", "cpu", "--work-dir", str(work_dir), "--resume"]
    return [sys.executable, *launch, MORTAL, kill[0], str(kill[1]), str(rank), *run, *overrides]


def start(work_dir, *args, **options):
    line = command(work_dir, *args, **options)
    return subprocess.run(line, capture_output=True, text=True, env=ENVIRONMENT, timeout=1200)


def launch(work_dir, **options):
    line = command(work_dir, **options)
    return subprocess.Popen(line, stderr=subprocess.DEVNULL, env=ENVIRONMENT)


def timed(work_dir, **options):
    """Runs to the end; returns the seconds to its first entry of the log, and to its end."""
    started = time.monotonic()
    process = launch(work_dir, **options)
    while not (work_dir / "log.jsonl").exists():
        assert process.poll() is None
        time.sleep(0.05)
    begins = time.monotonic() - started
    assert process.wait() == 0
    return begins, time.monotonic() - started


def flat(tree, path=""):
    """Yields the leaves of nested plain data with their paths."""
    if isinstance(tree, dict | list | tuple):
        items = tree.items() if isinstance(tree, dict) else enumerate(tree)
        for key, value in items:
            yield from flat(value, f"{path}.{key}")
    else:
        yield path, tree


def assert_same_run(one, other):
    """Compares two work directories bit by bit; times and memory aside."""
    last, same = find_checkpoint(str(one)), find_checkpoint(str(other))
    assert Path(last).name == Path(same).name
    for path in Path(last).glob("*.safetensors"):
        assert path.read_bytes() == Path(same, path.name).read_bytes(), path.name
    states = (dict(flat(load_training_state(folder))) for folder in (last, same))
    for (name, value), (other_name, there) in zip(*(s.items() for s in states), strict=True):
        assert name == other_name
        equal = torch.equal(value, there) if isinstance(value, torch.Tensor) else value == there
        assert equal, name
    for name in ("log.jsonl", "evaluations.jsonl"):
        entries = [
            [without_measured(json.loads(line)) for line in (folder / name).open()]
            for folder in (one, other)
        ]
        assert entries[0] == entries[1]
    pictures = sorted(path.name for path in (one / "samples").iterdir())
    assert pictures == sorted(path.name for path in (other / "samples").iterdir())
    for name in pictures:
        assert (one / "samples" / name).read_bytes() == (other / "samples" / name).read_bytes()
    assert not list(other.rglob("*.part"))


def without_measured(entry):
    return {key: value for key, value in entry.items() if key not in MEASURED}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that was never interrupted."""
    folder = tmp_path_factory.mktemp("kills") / "whole"
    done = start(folder)
    assert done.returncode == 0, done.stderr
    return folder


# Before the first checkpoint; while its files are written; before its manifest is in its place; in
# an evaluation; in the middle of a line of the log; between two checkpoints; after the last
# checkpoint, in the last evaluation.
KILLS = [
    ("update", 3),
    ("fsync", 5),
    ("replace", 8),
    ("metric", 1),
    ("entry", 1),
    ("update", 12),
    ("metric", 1),
]


def test_a_run_killed_again_and_again_is_the_run_that_never_was(whole, tmp_path):
    for kill in KILLS:
        done = start(tmp_path / "run", kill)
        assert done.returncode == -signal.SIGKILL, done.stderr
    done = start(tmp_path / "run")

    assert done.returncode == 0, done.stderr
    assert_same_run(whole, tmp_path / "run")


def test_a_run_that_is_over_has_nothing_to_do(whole):
    before = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}

    done = start(whole)

    assert done.returncode == 0
    assert "nothing to do: the run has its 96 images" in done.stderr
    assert before == {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}


def test_a_run_goes_on_in_another_place_from_its_first_checkpoint(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "moved")
    first = sorted((tmp_path / "moved/checkpoints").iterdir())[0]
    for folder in (tmp_path / "moved/checkpoints").iterdir():
        if folder != first:
            shutil.rmtree(folder)

    done = start(tmp_path / "moved")

    assert done.returncode == 0, done.stderr
    assert f"resuming from {first}" in done.stderr
    assert_same_run(whole, tmp_path / "moved")


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    older, newest = sorted((tmp_path / "run/checkpoints").iterdir())
    content = bytearray((newest / "generator.safetensors").read_bytes())
    content[-1] ^= 1
    (newest / "generator.safetensors").write_bytes(content)

    done = start(tmp_path / "run")

    assert done.returncode == 0, done.stderr
    assert f"{newest.name}/generator.safetensors is corrupt" in done.stderr
    assert f"resuming from {older}" in done.stderr
    assert_same_run(whole, tmp_path / "run")


def test_a_process_that_dies_ends_the_job(tmp_path):
    line = command(tmp_path / "run", ("update", 5), rank=1, torchrun=True, num_images=10**7)
    process = subprocess.Popen(line, stderr=subprocess.DEVNULL, env=ENVIRONMENT)

    assert process.wait(timeout=120) != 0  # The starts of both included; by itself it never ends.


# --- Slow ---


@pytest.mark.slow
def test_twenty_kills_at_random_moments(tmp_path):
    settings = {
        "num_images": 60_000,
        "checkpoint_every": 400,
        "sample_every": 1000,
        "evaluate_every": 2000,
        "log.every": 240,
    }
    begins, ends = timed(tmp_path / "whole", **settings)
    moments = random.Random(0)
    for _ in range(20):
        process = launch(tmp_path / "run", **settings)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(moments.uniform(0.8 * begins, begins + (ends - begins) / 15))
        process.kill()
        process.wait()
    assert start(tmp_path / "run", **settings).returncode == 0
    assert_same_run(tmp_path / "whole", tmp_path / "run")


@pytest.mark.slow
def test_a_kill_at_every_write_of_a_checkpoint(whole, tmp_path):
    for count in range(1, 9):
        for function in ("fsync", "replace"):
            folder = tmp_path / f"{function}-{count}"
            assert start(folder, (function, count)).returncode == -signal.SIGKILL
            assert start(folder).returncode == 0
            assert_same_run(whole, folder)


@pytest.mark.slow
@pytest.mark.parametrize("distributed", ["ddp", "fsdp"])
def test_two_processes_that_are_killed(tmp_path, distributed):
    options = {"torchrun": True, "distributed": distributed}
    assert start(tmp_path / "whole", **options).returncode == 0
    for kill, rank in ((("update", 9), 1), (("fsync", 9), 0), (("metric", 1), 0)):
        assert start(tmp_path / "run", kill, rank, **options).returncode != 0
    assert start(tmp_path / "run", **options).returncode == 0
    assert_same_run(tmp_path / "whole", tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_job_saves(tmp_path, number):
    settings = {"num_images": 80_000, "checkpoint_every": "null", "evaluation.metrics": "[]"}
    line = command(tmp_path / "run", torchrun=True, **settings)
    process = subprocess.Popen(line, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    while not (tmp_path / "run/log.jsonl").exists():
        time.sleep(0.1)
    process.send_signal(number)
    _, errors = process.communicate(timeout=300)

    assert process.returncode != 0
    assert "stopped and saved" in errors
    assert find_checkpoint(str(tmp_path / "run"))
