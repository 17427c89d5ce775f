"""afmlib, which kills itself at a given call of a given function, as a machine does that is lost.

    python mortal.py FUNCTION COUNT RANK train afm_digits ...

kills process RANK at its COUNT-th call of FUNCTION. The names are those of `TARGETS`.
"""

import os
import signal
import sys


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def targets():
    from afmlib.engine.json_lines import JsonLines
    from afmlib.engine.step import TrainingStep
    from afmlib.metrics.diversity import Diversity

    return {
        "update": (TrainingStep, "update"),
        "fsync": (os, "fsync"),
        "replace": (os, "replace"),
        "metric": (Diversity, "__call__"),
        "entry": (JsonLines, "append"),
    }


def make_mortal(owner, name, count):
    """Lets a function kill the process at a call, in the middle of what it does."""
    function = getattr(owner, name)
    calls = 0

    def mortal(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == count:
            if name == "append":  # Half a line.
                with open(args[0].path, "a") as file:
                    file.write('{"num_images": 1')
            die()
        return function(*args, **kwargs)

    setattr(owner, name, mortal)


if __name__ == "__main__":
    function, count, rank, *argv = sys.argv[1:]
    from afmlib.engine import Runner  # noqa: F401  # Before mmengine's own modules.

    if os.environ.get("RANK", "0") == rank and function in targets():
        make_mortal(*targets()[function], int(count))
    from afmlib.cli import main

    sys.exit(main(argv))
