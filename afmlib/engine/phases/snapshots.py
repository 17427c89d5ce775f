"""Snapshots of the networks, which a phase controller may restore."""

__all__ = ["Snapshots"]

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from torch import Tensor

from afmlib import processes
from afmlib.engine.state import load_network, whole_network
from afmlib.engine.step import TrainingStep
from afmlib.io import storage
from afmlib.io.checkpoint import (
    CheckpointError,
    checkpoint_folders,
    checkpoint_path,
    is_complete,
    load_tensors,
    read_manifest,
    save_checkpoint,
)

FOLDER = "snapshots"


class Snapshots:
    """States of all networks of a run, each under its number of images.

    Args:
        work_dir: The folder of the run.
        needed: Returns the snapshots that the controller may still restore.
    """

    def __init__(self, work_dir: str, needed: Callable[[], Iterable[int]]) -> None:
        self.work_dir = work_dir
        self.folder = storage.join(work_dir, FOLDER)
        self.needed = needed

    def save(self, step: TrainingStep, names: Iterable[str], num_images: int) -> None:
        """Saves networks. All processes must call it, and the first one writes."""
        networks: dict[str, dict[str, Tensor]] = {
            name: whole_network(step.objective, name, step.distribution) for name in names
        }
        if processes.rank() == 0:
            manifest = {"num_images": num_images}
            save_checkpoint(self._path(num_images), networks, {}, "", manifest)

    def adopt(
        self, names: Sequence[str], counts: Mapping[int, int], changed: Collection[int]
    ) -> None:
        """Makes snapshots of kept checkpoints, for a list of phases that was edited.

        All processes must call it, and the first one writes.

        Args:
            names: The networks.
            counts: The snapshots to make, and the checkpoint that holds each.
            changed: Checkpoints that were saved after a phase changed networks. A snapshot is the
                state before such a change.

        Raises:
            CheckpointError: If neither the snapshot nor a checkpoint of the same networks exists.
        """
        missing = None
        if processes.rank() == 0:
            for count, reached in counts.items():
                if not is_complete(self._path(count)):
                    missing = missing or (
                        f"phases restore the state at {count} images, where they also change "
                        "networks: the state before was not kept. Choose another number."
                        if reached in changed
                        else self._adopt(names, count, reached)
                    )
        missing = processes.from_first(missing)
        if missing is not None:
            raise CheckpointError(missing)

    def _adopt(self, names: Sequence[str], count: int, reached: int) -> str | None:
        """Returns an error message, or None."""
        checkpoint = checkpoint_path(self.work_dir, reached)
        if not is_complete(checkpoint):
            kept = [int(path.rsplit("/", 1)[-1]) for path in checkpoint_folders(self.work_dir)]
            return (
                f"phases restore the state at {count} images, which has neither a snapshot nor a "
                f"checkpoint; there are checkpoints at {', '.join(map(str, kept[::-1]))}."
            )
        try:
            networks = {name: load_tensors(checkpoint, name) for name in names}
        except CheckpointError as error:
            return str(error)
        save_checkpoint(self._path(count), networks, {}, "", {"num_images": count})
        return None

    def restore(self, step: TrainingStep, names: Iterable[str], num_images: int) -> None:
        """Restores networks.

        Raises:
            CheckpointError: If the snapshot is missing or corrupt.
        """
        for name in names:
            load_network(step.objective, name, self._path(num_images), step.distribution)

    def require(self, num_images: int) -> None:
        """Checks that all snapshots that may be needed exist.

        Args:
            num_images: Images at which the run resumes. Later snapshots do not exist yet.

        Raises:
            CheckpointError: Names the first that is missing or incomplete.
        """
        for count in sorted(self.needed()):
            if count <= num_images:
                read_manifest(self._path(count))

    def prune(self) -> None:
        """Removes snapshots that neither the controller nor a checkpoint needs."""
        needed = set(self.needed())
        for folder in filter(is_complete, checkpoint_folders(self.work_dir)):
            needed |= set(read_manifest(folder).get("snapshots", ()))
        for name in storage.list_folders(self.folder):
            if not name.isdecimal() or int(name) not in needed:
                storage.remove_folder(storage.join(self.folder, name))

    def _path(self, num_images: int) -> str:
        return storage.join(self.folder, f"{num_images:09d}")
