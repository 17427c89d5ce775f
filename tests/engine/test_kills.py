"""A run that is killed at any moment and resumed equals an uninterrupted run, bit by bit."""

import contextlib
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import mortal
import pytest
import torch
from forks import Fork

from afmlib.io.checkpoint import find_checkpoint, load_training_state
from afmlib.io.lock import _process_started

TORCHRUN = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
MEASURED = {"images_per_second", "peak_memory_gib"}
NEVER = ("never", 0)

SETTINGS = {
    "objective.generator.hidden_size": 16,
    "objective.generator.depth": 1,
    "objective.discriminator.hidden_size": 16,
    "objective.discriminator.depth": 1,
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


def command(work_dir, settings):
    overrides = [f"--set={key}={value}" for key, value in {**SETTINGS, **settings}.items()]
    run = ["train", "afm_digits", "--device", "cpu", "--work-dir", str(work_dir), "--resume"]
    return [*run, *overrides]


def launch(work_dir, kill=NEVER, **settings):
    """Starts or resumes a run in a fork."""
    output = f"{work_dir}.txt"
    return Fork(output, mortal.run, *kill, 0, *command(work_dir, settings))


def finish(work_dir, **settings):
    """Starts or resumes a run to its end; returns what it prints."""
    run = launch(work_dir, **settings)
    assert run.wait() == 0, run.output
    return run.output


def is_killed(work_dir, kill, **settings):
    """Starts or resumes a run that is to be killed; returns whether it was."""
    run = launch(work_dir, kill, **settings)
    assert run.wait() in (0, -signal.SIGKILL), run.output
    return run.wait() != 0


def launch_two(work_dir, kill=NEVER, rank=0, **settings):
    """Starts or resumes a run of two processes by torchrun."""
    line = [mortal.__file__, kill[0], str(kill[1]), str(rank), *command(work_dir, settings)]
    return subprocess.Popen([sys.executable, *TORCHRUN, *line], stderr=subprocess.DEVNULL)


def flat(tree, path=""):
    """Yields the leaves of nested plain data with their paths."""
    if isinstance(tree, dict | list | tuple):
        items = tree.items() if isinstance(tree, dict) else enumerate(tree)
        for key, value in items:
            yield from flat(value, f"{path}.{key}")
    else:
        yield path, tree


def entries(path):
    """Returns a log without speed and memory."""
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return [{key: entry[key] for key in entry.keys() - MEASURED} for entry in found]


def assert_same_run(one, other):
    """Compares two work directories bit by bit."""
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
        assert (one / name).exists() == (other / name).exists()
        if (one / name).exists():
            assert entries(one / name) == entries(other / name)
    pictures = sorted(path.name for path in (one / "samples").iterdir())
    assert pictures == sorted(path.name for path in (other / "samples").iterdir())
    for name in pictures:
        assert (one / "samples" / name).read_bytes() == (other / "samples" / name).read_bytes()
    assert not list(other.rglob("*.part"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that was never interrupted."""
    folder = tmp_path_factory.mktemp("kills") / "whole"
    finish(folder)
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


def test_many_kills(whole, tmp_path):
    for kill in KILLS:
        assert is_killed(tmp_path / "run", kill), kill
    finish(tmp_path / "run")

    assert_same_run(whole, tmp_path / "run")


def test_kill_while_training_overtakes_a_checkpoint(tmp_path):
    settings = {"num_images": 48, "checkpoint_every": 16, "evaluation.metrics": "[]"}
    finish(tmp_path / "whole", **settings)
    files = len(list((tmp_path / "whole/checkpoints/000000048").iterdir()))
    for count in (1, files, files + 2):  # First file; manifest; a file of the second checkpoint.
        folder = tmp_path / str(count)
        assert is_killed(folder, ("overtaken", count), **settings)
        complete = list(folder.glob("checkpoints/*/manifest.json"))
        assert len(complete) == (count > files)
        finish(folder, **settings)
        assert_same_run(tmp_path / "whole", folder)


@pytest.mark.parametrize("call", ["replace", pytest.param("fsync", marks=pytest.mark.slow)])
def test_kill_at_every_write(tmp_path, call):
    settings = {
        "num_images": 16,
        "checkpoint_every": 8,
        "sample_every": 8,
        "log.every": 8,
        "evaluation.metrics": "[]",
    }
    finish(tmp_path / "whole", **settings)
    for count in itertools.count(1):
        folder = tmp_path / str(count)
        if not is_killed(folder, (call, count), **settings):
            break
        finish(folder, **settings)
        assert_same_run(tmp_path / "whole", folder)

    files = len(list((tmp_path / "whole/checkpoints/000000008").iterdir()))
    assert count > 2 * files >= 12  # Each file of both checkpoints.


def test_resume_after_the_end_writes_nothing(whole):
    before = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}

    output = finish(whole)

    assert "96 images" in output
    assert before == {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}


def test_resume_in_another_place(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "moved")
    first, *others = sorted((tmp_path / "moved/checkpoints").iterdir())
    for folder in others:
        shutil.rmtree(folder)

    output = finish(tmp_path / "moved")

    assert str(first) in output
    assert_same_run(whole, tmp_path / "moved")


def test_corrupt_checkpoint_is_named_and_skipped(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    older, newest = sorted((tmp_path / "run/checkpoints").iterdir())
    content = bytearray((newest / "generator.safetensors").read_bytes())
    content[-1] ^= 1
    (newest / "generator.safetensors").write_bytes(content)

    output = finish(tmp_path / "run")

    assert f"{newest.name}/generator.safetensors" in output
    assert str(older) in output
    assert_same_run(whole, tmp_path / "run")


def test_second_run_in_folder_is_refused(tmp_path):
    run = launch(tmp_path / "run", num_images=10**7)
    run.wait_for((tmp_path / "run/log.jsonl").exists)

    second = Fork(tmp_path / "second.txt", mortal.run, *NEVER, 0, *command(tmp_path / "run", {}))

    assert second.wait() == 2
    assert f"is in use by process {run.process.pid} on" in second.output
    run.send_signal(signal.SIGTERM)
    assert run.wait() == 143
    assert not (tmp_path / "run/writer.lock").exists()


def test_killed_launcher_ends_its_processes(tmp_path):
    job = launch_two(tmp_path / "run", num_images=10**7)
    while not (tmp_path / "run/log.jsonl").exists():
        assert job.poll() is None
        time.sleep(0.1)
    ranks = Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split()
    assert len(ranks) == 2
    job.kill()
    job.wait()

    deadline = time.monotonic() + 120
    try:
        while any(_process_started(int(pid)) is not None for pid in ranks):
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        for pid in ranks:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
    finish(tmp_path / "run", num_images=24)


def test_dead_process_ends_the_job(tmp_path):
    job = launch_two(tmp_path / "run", ("update", 5), rank=1, num_images=10**7)

    assert job.wait(timeout=120) != 0  # Without the kill it never ends.


# --- Slow ---


@pytest.mark.slow
def test_twenty_random_kills(tmp_path):
    settings = {
        "num_images": 60_000,
        "checkpoint_every": 400,
        "sample_every": 1000,
        "evaluate_every": 2000,
        "log.every": 240,
    }
    started = time.monotonic()
    run = launch(tmp_path / "whole", **settings)
    run.wait_for((tmp_path / "whole/log.jsonl").exists)
    begins = time.monotonic() - started
    assert run.wait(1200) == 0
    ends = time.monotonic() - started
    moments = random.Random(0)
    for _ in range(20):
        run = launch(tmp_path / "run", **settings)
        assert run.wait(moments.uniform(0.8 * begins, begins + (ends - begins) / 25)) is None
        run.kill()
    assert launch(tmp_path / "run", **settings).wait(1200) == 0
    assert_same_run(tmp_path / "whole", tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"distributed": "ddp"},
        {"distributed": "fsdp"},
        {"distributed": "fsdp", "sharded_checkpoints": "true"},
    ],
)
def test_kills_of_one_of_two_processes(tmp_path, settings):
    assert launch_two(tmp_path / "whole", **settings).wait() == 0
    for kill, rank in ((("update", 9), 1), (("fsync", 9), 0), (("metric", 1), 0)):
        assert launch_two(tmp_path / "run", kill, rank, **settings).wait() != 0
    assert launch_two(tmp_path / "run", **settings).wait() == 0
    assert_same_run(tmp_path / "whole", tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_to_the_job_saves(tmp_path, number):
    settings = {"num_images": 80_000, "checkpoint_every": "null", "evaluation.metrics": "[]"}
    job = launch_two(tmp_path / "run", **settings)
    while not (tmp_path / "run/log.jsonl").exists():
        time.sleep(0.1)
    job.send_signal(number)

    assert job.wait(timeout=300) != 0
    assert find_checkpoint(str(tmp_path / "run"))
