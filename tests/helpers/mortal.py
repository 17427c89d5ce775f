"""afmlib, killed at a given call of a given function, as on a machine that is lost.

    python mortal.py FUNCTION COUNT RANK train afm_digits ...

kills process RANK at its COUNT-th call of FUNCTION: "update" (a step of an optimizer), "fsync",
"replace", "metric" or "entry" (of the log; half a line is written). COUNT 0 kills nothing.

"overtaken" is a "replace" of the thread that writes checkpoints. It waits for a whole iteration of
the training before the process is killed.
"""

import os
import signal
import sys
import threading
import time

__all__ = ["run"]


def run(function, count, rank, *argv):
    """Runs a command line; returns its exit status, if it lives that long."""
    from afmlib.cli import main
    from afmlib.engine import Runner  # noqa: F401  # Before mmengine's own modules.

    if count and os.environ.get("RANK", "0") == str(rank):
        _kill_at(function, Countdown(count))
    return main(argv)


class Countdown:
    def __init__(self, count):
        self.count = count

    def is_over(self):
        self.count -= 1
        return self.count == 0


def _kill_at(function, countdown):
    if function == "update":
        from torch.optim.optimizer import register_optimizer_step_pre_hook

        register_optimizer_step_pre_hook(lambda *_: _die() if countdown.is_over() else None)
        return
    if function == "overtaken":
        _kill_when_overtaken(countdown)
        return
    owner, name = _owner(function)
    original = getattr(owner, name)

    def mortal(*args, **kwargs):
        if countdown.is_over():
            if function == "entry":
                with open(args[0].path, "a") as file:
                    file.write('{"num_images": 1')
            _die()
        return original(*args, **kwargs)

    setattr(owner, name, mortal)


def _kill_when_overtaken(countdown):
    from torch.optim.optimizer import register_optimizer_step_post_hook

    updates, original = [], os.replace
    register_optimizer_step_post_hook(lambda *_: updates.append(None))

    def mortal(*args, **kwargs):
        is_background = threading.current_thread() is not threading.main_thread()
        if is_background and countdown.is_over():
            count, deadline = len(updates), time.monotonic() + 10
            # It ends if the training waits at the next checkpoint, for this one.
            while len(updates) < count + 2 and time.monotonic() < deadline:
                time.sleep(0.001)
            _die()
        return original(*args, **kwargs)

    os.replace = mortal


def _owner(function):
    from afmlib.engine.json_lines import JsonLines
    from afmlib.metrics.diversity import Diversity

    owners = {"metric": (Diversity, "__call__"), "entry": (JsonLines, "append")}
    return owners.get(function, (os, function))


def _die():
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    function, count, rank, *argv = sys.argv[1:]
    sys.exit(run(function, int(count), rank, *argv))
