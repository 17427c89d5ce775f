"""Snapshots of the networks, to which a phase controller may go back."""

__all__ = ["Snapshots"]

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from torch import Tensor

from afmlib import processes
from afmlib.engine.objective_model import ObjectiveModel
from afmlib.engine.state import load_network, whole_network
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
    """States of all networks of a run, each under its count of images.

    Args:
        work_dir: The folder of the run.
        needed: Tells which the controller may yet go back to.
    """

    def __init__(self, work_dir: str, needed: Callable[[], Iterable[int]]) -> None:
        self.work_dir = work_dir
        self.folder = storage.join(work_dir, FOLDER)
        self.needed = needed

    def save(self, model: ObjectiveModel, names: Iterable[str], num_images: int) -> None:
        """Keeps networks as they are; all processes must call it, and the first one writes."""
        networks: dict[str, dict[str, Tensor]] = {
            name: whole_network(model, name) for name in names
        }
        if processes.rank() == 0:
            manifest = {"num_images": num_images}
            save_checkpoint(self._path(num_images), networks, {}, "", manifest)

    def adopt(
        self, names: Sequence[str], counts: Mapping[int, int], changed: Collection[int]
    ) -> None:
        """Makes snapshots of kept checkpoints, for a list that was changed since.

        All processes must call it, and the first one writes.

        Args:
            names: The networks.
            counts: The counts, and those of the checkpoints that hold what there was then.
            changed: Counts of checkpoints before which networks were changed by the list: a
                snapshot is of what there was before that.

        Raises:
            CheckpointError: If there is neither the snapshot nor a checkpoint of the same networks.
        """
        missing = None
        if processes.rank() == 0:
            for count, reached in counts.items():
                if not is_complete(self._path(count)):
                    missing = missing or (
                        f"phases go back to {count} images, where they also change networks: what "
                        "there was before is not kept. Take another count."
                        if reached in changed
                        else self._adopt(names, count, reached)
                    )
        missing = processes.from_first(missing)
        if missing is not None:
            raise CheckpointError(missing)

    def _adopt(self, names: Sequence[str], count: int, reached: int) -> str | None:
        """Returns why it cannot be, if it cannot."""
        checkpoint = checkpoint_path(self.work_dir, reached)
        if not is_complete(checkpoint):
            kept = [int(path.rsplit("/", 1)[-1]) for path in checkpoint_folders(self.work_dir)]
            return (
                f"phases go back to {count} images, of which there is neither a snapshot nor a "
                f"checkpoint; there are checkpoints of {', '.join(map(str, kept[::-1]))}."
            )
        try:
            networks = {name: load_tensors(checkpoint, name) for name in names}
        except CheckpointError as error:
            return str(error)
        save_checkpoint(self._path(count), networks, {}, "", {"num_images": count})
        return None

    def restore(self, model: ObjectiveModel, names: Iterable[str], num_images: int) -> None:
        """Brings networks back.

        Raises:
            CheckpointError: If the snapshot is missing or damaged.
        """
        for name in names:
            load_network(model, name, self._path(num_images))

    def require(self, num_images: int) -> None:
        """Refuses to go on without a snapshot that may be needed.

        Args:
            num_images: Images at which the run goes on; later snapshots are yet to be made.

        Raises:
            CheckpointError: Names the first that is missing or has no whole manifest.
        """
        for count in sorted(self.needed()):
            if count <= num_images:
                read_manifest(self._path(count))

    def prune(self) -> None:
        """Removes what neither the controller nor a checkpoint, that may be resumed, needs."""
        needed = set(self.needed())
        for folder in filter(is_complete, checkpoint_folders(self.work_dir)):
            needed |= set(read_manifest(folder).get("snapshots", ()))
        for name in storage.list_folders(self.folder):
            if not name.isdecimal() or int(name) not in needed:
                storage.remove_folder(storage.join(self.folder, name))

    def _path(self, num_images: int) -> str:
        return storage.join(self.folder, f"{num_images:09d}")
