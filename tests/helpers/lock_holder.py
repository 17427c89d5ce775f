"""A process that holds the lock of a folder."""

import time

from afmlib.io import lock

__all__ = ["hold"]


def hold(folder, interval=lock.INTERVAL):
    """Holds the lock for a minute. Returns 3 if it is refused."""
    lock.INTERVAL = interval
    try:
        with lock.only_writer(folder):
            time.sleep(60)
    except FileExistsError:
        return 3
