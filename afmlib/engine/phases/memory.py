"""What the automatic controller remembers of its measurements, as plain data."""

__all__ = ["Memory"]

from dataclasses import dataclass, field


@dataclass
class Memory:
    """The best measurement, how long there has been no better one, and what may be gone back to.

    A measurement that is not a number is never better.
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
    """Images during which the scale fell."""

    started_at: int = 0
    """Images at which the phase began."""

    best: float = float("inf")
    """The best measurement."""

    best_at: int | None = None
    """Images at which it was made."""

    reference: float = float("inf")
    """The value that a measurement has to be better than to count as an improvement."""

    stalled: int = 0
    """Measurements in turn that were none."""

    candidates: list[int] = field(default_factory=list)
    """Images at which a discriminator was kept that was not tried yet, ascending."""

    trying: int | None = None
    """Images of the discriminator that is being tried."""

    is_over: bool = False
    """Whether the run has ended."""

    def measure(self, num_images: int, value: float, tolerance: float) -> None:
        """Takes a measurement in."""
        self.previous, self.last = self.last, value
        if value < self.best:
            self.best, self.best_at, self.best_ot_scale = value, num_images, self.ot_scale
        if value < self.reference * (1 - tolerance):
            self.reference, self.stalled = value, 0
        else:
            self.stalled += 1

    def improves_fast(self, share: float) -> bool:
        """Tells whether the last measurement is by more than a share below the one before."""
        return self.last < self.previous * (1 - share)

    def keep_candidate(self, num_images: int, limit: int) -> None:
        """Keeps a discriminator: the newest from before the best, that one, and the newest after.

        All of them come before the best as soon as there is a better one.
        """
        if self.best_at is not None:
            later = [at for at in self.candidates if at > self.best_at]
            later += [num_images] if num_images > self.best_at else []
            self.candidates = [*self.earlier[-limit:], self.best_at, *later[-limit:]]

    @property
    def earlier(self) -> list[int]:
        """Images of the kept discriminators from before the best."""
        return [at for at in self.candidates if self.best_at is not None and at < self.best_at]

    def begin_phase(self, phase: str, num_images: int) -> None:
        """Begins another phase."""
        self.phase, self.started_at = phase, num_images
        self.go_on_from_best()

    def go_on_from_best(self) -> None:
        """Forgets what came after the best, which from here on is to be improved on."""
        self.candidates = [at for at in self.candidates if at <= (self.best_at or 0)]
        self.reference, self.stalled = self.best, 0

    def begin_comparing_anew(self) -> None:
        """Lets the next measurement be the best, which is gone back to until there is one."""
        self.best = self.reference = float("inf")

    @property
    def needed(self) -> set[int]:
        """Images of all that may be gone back to."""
        own = (self.best_at, self.trying)
        return {*self.candidates, *(at for at in own if at is not None)}
