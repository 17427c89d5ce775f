"""Processes that end with the one that started them, however that ended."""

__all__ = ["end_with_parent"]

import os
import threading
from multiprocessing import parent_process
from multiprocessing.connection import wait


def end_with_parent() -> None:
    """Sees to it that this process ends when the one that started it is gone.

    One that was killed cannot end its children, and what starts after it would share the machine
    and the folder with them.
    """
    threading.Thread(target=_wait, daemon=True).start()


def _wait() -> None:
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
