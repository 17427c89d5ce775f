"""How a batch is shared: the global batch is what counts, all else is derived from it."""

__all__ = ["BatchLayout"]

from dataclasses import dataclass

from afmlib import processes
from afmlib.config import ConfigError


@dataclass(frozen=True)
class BatchLayout:
    """A global batch, shared among processes and, within each, among parts.

    Each part is taken through the networks by itself, and the gradients of all are accumulated.
    """

    global_batch: int
    num_processes: int = 1
    num_parts: int = 1
    rank: int = 0

    @classmethod
    def of(cls, global_batch: int, micro_batch: int | None) -> "BatchLayout":
        """BatchLayout a batch among the processes that there are.

        Args:
            global_batch: The number of samples of an update.
            micro_batch: How many samples a process takes through the networks at once, at most;
                all that it has unless given.

        Raises:
            ConfigError: If it does not divide among the processes.
        """
        num_processes = processes.size()
        per_process, rest = divmod(global_batch, num_processes)
        if rest:
            raise ConfigError(
                f"global_batch {global_batch} does not divide among {num_processes} processes."
            )
        num_parts = next(
            parts
            for parts in range(1, per_process + 1)
            if per_process % parts == 0 and per_process // parts <= (micro_batch or per_process)
        )
        return cls(global_batch, num_processes, num_parts, processes.rank())

    @property
    def num_slices(self) -> int:
        """Parts over all processes."""
        return self.num_processes * self.num_parts

    @property
    def part_size(self) -> int:
        """Samples of one part."""
        return self.global_batch // self.num_slices

    def first_row(self, part: int) -> int:
        """The first row of the batch that is in a part of this process; it has every n-th."""
        return self.rank + part * self.num_processes

    def __str__(self) -> str:
        count, parts = self.num_processes, self.num_parts
        return (
            f"global batch {self.global_batch} = {count} process{'es' * (count > 1)} x "
            f"{parts} part{'s' * (parts > 1)} x {self.part_size}"
        )
