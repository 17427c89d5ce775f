"""The folder of a run: its files, and the checkpoint to resume from."""

__all__ = ["RunFolder"]

import shutil
from collections.abc import Iterable
from pathlib import Path

from afmlib import processes
from afmlib.config import ConfigError
from afmlib.io import storage
from afmlib.io.checkpoint import CHECKPOINTS, checkpoint_path, newest_valid, remove_old, set_aside

CONFIG = "config.yaml"
SAMPLES = "samples"


class RunFolder:
    """The folder of a run. Only the first process writes to it.

    Args:
        path: A path or a URL.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)

    def join(self, *names: str) -> str:
        return storage.join(self.path, *names)

    def checkpoint(self, num_images: int) -> str:
        """Returns the folder of a checkpoint."""
        return checkpoint_path(self.path, num_images)

    def require_free(self, resume: bool) -> None:
        """Checks that the folder holds no run, unless it is resumed.

        Raises:
            FileExistsError: If it holds a run.
            NotADirectoryError: If it is a file.
        """
        local = storage.local_path(self.path)
        if local is not None and Path(local).is_file():
            raise NotADirectoryError(f"{self.path} is a file, not a folder.")
        # Only the first process looks: it may write before another one does.
        holds_run = processes.from_first(processes.rank() == 0 and self._holds_run())
        if holds_run and not resume:
            raise FileExistsError(
                f"{self.path} already holds a run: resume it with --resume (in Python: "
                "resume=True), or name another folder with --work-dir (work_dir=)."
            )

    def require_space(self, num_bytes: int) -> None:
        """Checks that the disk has room for a checkpoint; object stores are not checked.

        Raises:
            ConfigError: If it does not fit.
        """
        local = storage.local_path(self.path)
        if local is None:
            return
        folder = Path(local).resolve()
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        free = shutil.disk_usage(existing).free
        if free < num_bytes:
            raise ConfigError(
                f"A checkpoint of this run takes {num_bytes / 2**20:.0f} MiB, and {existing} has "
                f"{free / 2**20:.0f} MiB left: free some space, or choose another --work-dir."
            )

    def _holds_run(self) -> bool:
        paths = map(self.join, (CONFIG, CHECKPOINTS))
        return any(storage.exists(path) or storage.is_link(path) for path in paths)

    def newest(self) -> tuple[str | None, list[str]]:
        """Finds the checkpoint to resume from, without changing anything.

        Returns:
            The newest valid checkpoint or None, and corrupt ones after it.

        Raises:
            CheckpointError: If all checkpoints are corrupt.
        """
        found: tuple[str | None, list[str]] = (None, [])
        if processes.rank() == 0:
            found = newest_valid(self.path)
        return processes.from_first(found)

    def clean_up(self, corrupt: Iterable[str] = ()) -> list[str]:
        """Cleans up after a killed run, and sets corrupt checkpoints aside.

        Returns:
            The new paths of the corrupt ones.
        """
        if processes.rank() > 0:
            return []
        for folder in (self.path, self.join(SAMPLES)):
            storage.remove_temporaries(folder)
        return set_aside(corrupt)

    def write_config(self, text: str) -> None:
        """Writes the config of the run."""
        if processes.rank() == 0:
            storage.write_atomically(self.join(CONFIG), text.encode())

    def remove_old(self, keep_last: int, keep_every: int | None) -> None:
        """Removes old checkpoints."""
        if processes.rank() == 0:
            remove_old(self.path, keep_last, keep_every)
