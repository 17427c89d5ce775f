"""Processes that start in 0.1 s: forks of an interpreter that has imported afmlib.

A fork has its own signals and exit status and can be killed, like a process of the shell. It does
not show how the interpreter starts and ends: tests of that start a real process.
"""

import gc
import multiprocessing
import os
import sys
import time
from pathlib import Path

__all__ = ["Fork", "run_afmlib"]

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    ["afmlib.cli.train", "afmlib.engine", "afmlib.networks", "matplotlib.pyplot", "sklearn.datasets"]
)


class Fork:
    """Runs an importable function in a fork, whose output goes to a file."""

    def __init__(self, output, function, *args, cwd="."):
        self.path = Path(output)
        self.process = _context.Process(
            target=_run, args=(str(self.path), str(cwd), function, args)
        )
        self.process.start()

    def wait(self, seconds=300):
        """Returns the exit status: a negative signal if killed, ``None`` if it still runs."""
        self.process.join(seconds)
        return self.process.exitcode

    def wait_for(self, condition, seconds=120):
        """Waits for a condition, in which the fork must not end."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.wait(0.02) is None, self.output
            assert time.monotonic() < deadline, self.output

    def send_signal(self, number):
        os.kill(self.process.pid, number)

    def kill(self):
        self.process.kill()
        self.process.join()

    @property
    def output(self):
        """The standard output and error so far."""
        return self.path.read_text() if self.path.exists() else ""


def run_afmlib(*argv):
    """Runs a command line of afmlib; returns its exit status."""
    from afmlib.cli import main

    return main(argv)


def _run(output, cwd, function, args):
    gc.freeze()  # Collecting what was imported takes longer than the rest of the start.
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.chdir(cwd)
    sys.exit(function(*args))
