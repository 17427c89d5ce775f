"""Processes that start in 0.1 s: forks of an interpreter that has imported afmlib.

A fork has its own signals and exit status and can be killed, like a process of the shell. It does
not show how the interpreter starts and ends: tests of that start a real process.
"""

import gc
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

from torch.distributed import TCPStore

__all__ = ["Fork", "run_afmlib", "run_together"]

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    [
        "afmlib.cli.train",
        "afmlib.engine",
        "afmlib.networks",
        "matplotlib.pyplot",
        "sklearn.datasets",
        "torch.distributed.fsdp",
    ]
)


class Fork:
    """Runs an importable function in a fork, whose output goes to a file."""

    def __init__(self, output, function, *args, cwd=".", environment=()):
        self.path = Path(output)
        options = (str(self.path), str(cwd), dict(environment), function, args)
        self.process = _context.Process(target=_run, args=options)
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


def run_together(folder, function, *args, size=2, local=None):
    """Runs a function in several forks with the environment that torchrun makes for them.

    They are on one machine, or on machines with ``local`` forks each.
    """
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # Any free port.
    forks = []
    for rank in range(size):
        environment = {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(size),
            "LOCAL_WORLD_SIZE": str(local or size),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(store.port),
            "TORCHELASTIC_USE_AGENT_STORE": "True",
        }
        output = Path(folder, f"output-{rank}.txt")
        forks.append(Fork(output, function, *args, environment=environment))
    try:
        while any(fork.wait(0.05) is None for fork in forks):
            if any(fork.wait(0) for fork in forks):
                break  # The others may wait for it.
        assert not any(fork.wait(0) for fork in forks), "\n".join(fork.output for fork in forks)
    finally:
        for fork in forks:
            fork.kill()


def _run(output, cwd, environment, function, args):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # A server may ignore it.
    gc.freeze()  # Collecting what was imported takes longer than the rest of the start.
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.chdir(cwd)
    os.environ.update(environment)
    sys.exit(function(*args))
