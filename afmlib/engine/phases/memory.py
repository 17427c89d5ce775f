"""The memory of the automatic controller, as plain data."""

__all__ = ["Memory"]

from dataclasses import dataclass, field


@dataclass
class Memory:
    """The best measurement, the stalled ones since, and the snapshots that may be restored.

    A NaN is never better.
    """

    phase: str
    """The phase of the run."""

    ot_scale: float
    """The transport scale."""

    best_ot_scale: float
    """The transport scale of the best measurement."""

    previous: float = float("inf")
    """The measurement before the last."""

    last: float = float("inf")
    """The last measurement."""

    ot_images: int = 0
    """Images during which the scale was falling."""

    started_at: int = 0
    """Images at which the phase started."""

    best: float = float("inf")
    """The best measurement."""

    best_at: int | None = None
    """Images at which it was made."""

    reference: float = float("inf")
    """The value that the next improvement must beat."""

    stalled: int = 0
    """Measurements in a row without an improvement."""

    candidates: list[int] = field(default_factory=list)
    """Kept discriminators that were not tried yet, as ascending numbers of images."""

    trying: int | None = None
    """The discriminator that is being tried, as its number of images."""

    is_over: bool = False
    """Whether the run has ended."""

    def measure(self, num_images: int, value: float, tolerance: float) -> None:
        """Records a measurement."""
        self.previous, self.last = self.last, value
        if value < self.best:
            self.best, self.best_at, self.best_ot_scale = value, num_images, self.ot_scale
        if value < self.reference * (1 - tolerance):
            self.reference, self.stalled = value, 0
        else:
            self.stalled += 1

    def improves_fast(self, share: float) -> bool:
        """Returns whether the last measurement is more than a share below the one before."""
        return self.last < self.previous * (1 - share)

    def keep_candidate(self, num_images: int, limit: int) -> None:
        """Keeps a discriminator: the newest before the best, the best, and the newest after."""
        if self.best_at is not None:
            later = [at for at in self.candidates if at > self.best_at]
            later += [num_images] if num_images > self.best_at else []
            self.candidates = [*self.earlier[-limit:], self.best_at, *later[-limit:]]

    @property
    def earlier(self) -> list[int]:
        """The kept discriminators from before the best."""
        return [at for at in self.candidates if self.best_at is not None and at < self.best_at]

    def begin_phase(self, phase: str, num_images: int) -> None:
        """Starts another phase."""
        self.phase, self.started_at = phase, num_images
        self.restart_from_best()

    def restart_from_best(self) -> None:
        """Drops candidates after the best, which is the new reference."""
        self.candidates = [at for at in self.candidates if at <= (self.best_at or 0)]
        self.reference, self.stalled = self.best, 0

    def reset_comparison(self) -> None:
        """Makes the next measurement the best. Until then, the old best may be restored."""
        self.best = self.reference = float("inf")

    @property
    def needed(self) -> set[int]:
        """The snapshots that may be restored."""
        own = (self.best_at, self.trying)
        return {*self.candidates, *(at for at in own if at is not None)}
