"""One contender in a process of its own, which works when it is its turn.

The process waits for the word to go, works until its slice is over, says so, and waits again. At
last it sends its row of the results. Whatever kills it kills no one else.
"""

__all__ = ["work"]

import signal
import traceback
from typing import Any

from ..contenders import is_missing_plugin
from .jobs import Job, empty_row, one_line
from .turn import Stopped, Turn


def work(connection: Any, job: Job) -> None:
    """Runs in the process of a contender."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The process that gives the turns ends us.
    row = empty_row(job)
    turn = Turn(connection, job.slice_seconds)
    try:
        turn.require_running()
        _run(job, turn, row)
    except Stopped:
        return
    except Exception as error:
        if job.debug:
            traceback.print_exc()
        status = "not run" if is_missing_plugin(error) else "failed"
        row |= {"status": status, "reason": one_line(error)}
    turn.finish(row)


def _run(job: Job, turn: Turn, row: dict[str, Any]) -> None:
    """Fills the row; what takes long to import is imported when it is our turn."""
    if job.contender.checkpoint is None:
        from .training import train_and_evaluate

        train_and_evaluate(job, turn, row)
    else:
        from .pretrained import evaluate_pretrained

        evaluate_pretrained(job, turn, row)
