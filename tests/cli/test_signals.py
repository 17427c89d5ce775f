"""A signal makes a run save and end, with the processes that it started."""

import signal
import subprocess
import sys
import time

import forks
import pytest
from forks import Fork

SETTINGS = {
    "objective.generator.hidden_size": 16,
    "objective.discriminator.hidden_size": 16,
    "global_batch": 8,
    "num_images": 10_000_000,
    "log.every": 8,
    "evaluation.metrics": "[]",
    "evaluation.extractor": "null",
}
SLOW_LOSS = """
import time
from pathlib import Path
from afmlib.losses.relativistic import RelativisticLoss
from afmlib.interfaces import AdversarialLoss
from afmlib.registry import LOSSES

@LOSSES.register_module()
class SlowLoss(AdversarialLoss):
    def __init__(self, seconds: float):
        super().__init__()
        self.seconds, self.loss, self.calls = seconds, RelativisticLoss(), 0

    def discriminator_loss(self, logits_real, logits_fake):
        self.calls += 1
        if self.calls > 1:  # The first is the check before the run.
            Path("in_the_loss").touch()
            time.sleep(self.seconds)
        return self.loss.discriminator_loss(logits_real, logits_fake)

    def generator_loss(self, logits_real, logits_fake):
        return self.loss.generator_loss(logits_real, logits_fake)
"""


def command(*options, **settings):
    overrides = [f"--set={key}={value}" for key, value in {**SETTINGS, **settings}.items()]
    return ["train", "afm_digits", "--work-dir=run", *overrides, *options]


@pytest.fixture
def start(tmp_path):
    """Starts a run in a fork."""
    (tmp_path / "slow.py").write_text(SLOW_LOSS)
    started = []

    def launch(*options, **settings):
        line = command(*options, **settings)
        started.append(Fork(tmp_path / "output.txt", forks.run_afmlib, *line, cwd=tmp_path))
        return started[-1]

    yield launch
    for fork in started:
        fork.kill()


def slow_loss(seconds):
    return {"objective.loss": f"{{type: SlowLoss, seconds: {seconds}}}"}


def saved(tmp_path):
    return list((tmp_path / "run/checkpoints").glob("*/manifest.json"))


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 138)]
)
def test_signal_saves(start, tmp_path, number, status):
    run = start()
    run.wait_for((tmp_path / "run/log.jsonl").exists)
    run.send_signal(number)

    assert run.wait(120) == status, run.output
    assert "--resume" in run.output
    assert saved(tmp_path)


# How an interpreter ends is seen of a real process only; a worker that lives holds its output open.


@pytest.fixture
def start_process(tmp_path):
    """Starts a run in a process."""
    started = []

    def launch(**settings):
        line = [sys.executable, "-m", "afmlib", *command(**settings)]
        started.append(subprocess.Popen(line, stderr=subprocess.PIPE, text=True, cwd=tmp_path))
        return started[-1]

    yield launch
    for process in started:
        process.kill()
        process.communicate()


def test_signal_ends_workers(start_process, tmp_path):
    process = start_process(num_workers=1)
    while not (tmp_path / "run/log.jsonl").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    output = process.communicate(timeout=120)[1]

    assert process.returncode == 143, output
    assert saved(tmp_path)


def test_run_with_workers_ends(start_process):
    process = start_process(num_workers=2, num_images=64)
    output = process.communicate(timeout=120)[1]

    assert process.returncode == 0, output


def test_second_interrupt_ends_at_once(start, tmp_path):
    run = start("--plugin=slow.py", **slow_loss(1000))
    run.wait_for((tmp_path / "in_the_loss").exists)
    run.send_signal(signal.SIGINT)
    assert run.wait(1) is None  # It waits for the end of its iteration.
    run.send_signal(signal.SIGINT)

    assert run.wait(60) == 130, run.output
    assert not (tmp_path / "run/checkpoints").exists()


def test_second_sigterm_changes_nothing(start, tmp_path):
    run = start("--plugin=slow.py", **slow_loss(2))
    run.wait_for((tmp_path / "in_the_loss").exists)
    for _ in range(2):
        run.send_signal(signal.SIGTERM)
        assert run.wait(0.3) is None

    assert run.wait(60) == 143, run.output
    assert saved(tmp_path)
