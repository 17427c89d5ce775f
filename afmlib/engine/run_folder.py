"""The folder of a run: what lies where, and where a run goes on from."""

__all__ = ["RunFolder"]

from collections.abc import Iterable
from pathlib import Path

from afmlib import processes
from afmlib.io import storage
from afmlib.io.checkpoint import CHECKPOINTS, checkpoint_path, newest_whole, remove_old, set_aside

CONFIG = "config.yaml"
SAMPLES = "samples"


class RunFolder:
    """The folder of a run, of which the first of several processes takes care.

    Args:
        path: A path or a URL.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)

    def join(self, *names: str) -> str:
        """Returns the path of something in the folder."""
        return storage.join(self.path, *names)

    def checkpoint(self, num_images: int) -> str:
        """Returns the folder of a checkpoint."""
        return checkpoint_path(self.path, num_images)

    def require_free(self, resume: bool) -> None:
        """Refuses a folder that holds a run, unless the run is to go on.

        Raises:
            FileExistsError: If it holds a run.
            NotADirectoryError: If it is a file.
        """
        local = storage.local_path(self.path)
        if local is not None and Path(local).is_file():
            raise NotADirectoryError(f"{self.path} is a file, not a folder.")
        # Asked by the first process alone: it may begin to write before another one looks.
        holds_run = processes.from_first(processes.rank() == 0 and self._holds_run())
        if holds_run and not resume:
            raise FileExistsError(
                f"{self.path} holds a run already: go on with it by --resume, or name another "
                "folder by --work-dir."
            )

    def _holds_run(self) -> bool:
        return any(storage.exists(self.join(name)) for name in (CONFIG, CHECKPOINTS))

    def newest(self) -> tuple[str | None, list[str]]:
        """Finds where a run goes on from; nothing is touched.

        Returns:
            The newest whole checkpoint, None if there is none; and damaged ones after it.

        Raises:
            CheckpointError: If all checkpoints are damaged.
        """
        found: tuple[str | None, list[str]] = (None, [])
        if processes.rank() == 0:
            found = newest_whole(self.path)
        return processes.from_first(found)

    def clear_up(self, damaged: Iterable[str] = ()) -> list[str]:
        """Clears up after a run that was killed, and sets damaged checkpoints aside.

        Returns:
            The new paths of the damaged ones.
        """
        if processes.rank() > 0:
            return []
        for folder in (self.path, self.join(SAMPLES)):
            storage.remove_temporaries(folder)
        return set_aside(damaged)

    def write_config(self, text: str) -> None:
        """Writes the config of the run down."""
        if processes.rank() == 0:
            storage.write_atomically(self.join(CONFIG), text.encode())

    def remove_old(self, keep_last: int, keep_every: int | None) -> None:
        """Removes old checkpoints."""
        if processes.rank() == 0:
            remove_old(self.path, keep_last, keep_every)
