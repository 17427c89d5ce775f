"""One function at a time in a thread, such as the write of a checkpoint behind the training."""

__all__ = ["Background"]

import threading
from collections.abc import Callable


class Background:
    """A thread that runs one function. It ends with the process."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._failure: Exception | None = None

    def start(self, function: Callable[[], object]) -> None:
        """Waits for the previous function, and starts this one.

        Raises:
            Exception: The exception of the previous one.
        """
        self.wait()

        def run() -> None:
            try:
                function()
            except Exception as error:
                self._failure = error

        # A daemon: at a second Ctrl-C, the process exits as if it were killed.
        self._thread = threading.Thread(target=run, name="afmlib-background", daemon=True)
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """Whether the function has not returned."""
        return self._thread is not None and self._thread.is_alive()

    def wait(self) -> None:
        """Waits for the function.

        Raises:
            Exception: The exception of the function. It is raised once.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
