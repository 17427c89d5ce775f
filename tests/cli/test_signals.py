"""Signals to a run: it saves and says how to go on; and it ends, whatever it has started."""

import signal
import subprocess
import sys

import pytest

SETTINGS = {
    "objective.generator.hidden_size": 16,
    "objective.discriminator.hidden_size": 16,
    "global_batch": 8,
    "num_images": 10_000_000,
    "evaluation.metrics": "[]",
    "evaluation.extractor": "null",
}
SLOW_LOSS = """
import time
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
            print("in the loss", flush=True)
            time.sleep(self.seconds)
        return self.loss.discriminator_loss(logits_real, logits_fake)

    def generator_loss(self, logits_real, logits_fake):
        return self.loss.generator_loss(logits_real, logits_fake)
"""


@pytest.fixture
def start(tmp_path):
    """Starts a run in a process, whose output can be read line by line."""
    (tmp_path / "slow.py").write_text(SLOW_LOSS)
    processes = []

    def launch(*options, **settings):
        overrides = [f"--set={key}={value}" for key, value in {**SETTINGS, **settings}.items()]
        process = subprocess.Popen(
            [sys.executable, "-m", "afmlib", "train", "afm_digits", *overrides, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=tmp_path,
        )
        processes.append(process)
        return process

    yield launch
    for process in processes:
        process.kill()
        process.communicate()


def wait_for(process, text):
    lines = []
    for line in process.stdout:
        lines.append(line)
        if text in line:
            return
    raise AssertionError("".join(lines))


@pytest.mark.parametrize(
    ("number", "status", "num_workers"),
    [(signal.SIGINT, 130, 0), (signal.SIGTERM, 143, 0), (signal.SIGTERM, 143, 1)],
)
def test_a_signal_saves_and_tells_how_to_go_on(start, tmp_path, number, status, num_workers):
    process = start("--work-dir=run", num_workers=num_workers)
    wait_for(process, "into run")
    process.send_signal(number)
    output = process.communicate(timeout=120)[0]  # Else it hangs.

    assert process.returncode == status, output
    assert "repeat the command with --resume" in output
    assert list((tmp_path / "run/checkpoints").glob("*/manifest.json"))


def test_a_run_with_workers_ends(start):
    process = start("--work-dir=run", num_workers=2, num_images=64)

    output = process.communicate(timeout=120)[0]

    assert process.returncode == 0, output


def test_a_second_interrupt_ends_at_once(start, tmp_path):
    loss = "{type: SlowLoss, seconds: 1000}"
    process = start("--plugin=slow.py", "--work-dir=run", **{"objective.loss": loss})
    wait_for(process, "in the loss")
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1)  # It waits for the end of its iteration.
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)

    assert process.returncode == 130
    assert not (tmp_path / "run/checkpoints").exists()


def test_a_second_sigterm_changes_nothing(start, tmp_path):
    loss = "{type: SlowLoss, seconds: 2}"
    process = start("--plugin=slow.py", "--work-dir=run", **{"objective.loss": loss})
    wait_for(process, "in the loss")
    for _ in range(2):
        process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
    output = process.communicate(timeout=60)[0]

    assert process.returncode == 143, output
    assert list((tmp_path / "run/checkpoints").glob("*/manifest.json"))
