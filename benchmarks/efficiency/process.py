"""The process of one contender. Whatever kills it kills no one else, and what it sent stays."""

__all__ = ["work"]

import signal
import traceback
import warnings
from collections.abc import Mapping
from typing import Any

from ..compare.jobs import one_line
from ..contenders import is_missing_plugin
from ..lifetime import end_with_parent
from .entries import empty_entry


def work(
    connection: Any, name: str, config: Mapping[str, Any], patience: float, debug: bool
) -> None:
    """Counts and measures; sends its entry as ("entry", share, entry) after every part of it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The process that started this one ends it.
    end_with_parent()
    entry = empty_entry(name)
    try:
        _fill(connection, config, patience, entry)
    except FileNotFoundError as error:
        entry |= {"status": "not run", "reason": str(error)}
    except Exception as error:
        if debug:
            traceback.print_exc()
        status = "not run" if is_missing_plugin(error) else "failed"
        entry |= {"status": status, "reason": one_line(error)}
    connection.send(("done", 1.0, entry))


def _fill(
    connection: Any, config: Mapping[str, Any], patience: float, entry: dict[str, Any]
) -> None:
    def show(share: float) -> None:
        connection.send(("entry", share, entry))

    import torch

    from .contender import count, measure
    from .counting import on_meta
    from .subject import subject_of

    subject = subject_of(config)
    with on_meta(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "for .* copying from a non-meta parameter")
        blueprint = subject.build()
    entry |= count(subject, blueprint)
    show(0.2)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    measure(subject, blueprint, entry, (device, patience), show)
