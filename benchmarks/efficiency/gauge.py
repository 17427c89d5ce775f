"""How long something will take, from its operations and from what was measured before."""

__all__ = ["Gauge"]

from dataclasses import dataclass, field

import torch


@dataclass
class Gauge:
    """What a device does in a second.

    The best share of the peak that was seen so far is what is expected of the next measurement; the
    whole of it before the first.
    """

    device: torch.device
    peak: float
    """Operations per second in a product of matrices."""

    patience: float
    """Seconds of a sample or an iteration above which it is computed and not measured."""

    shares: list[float] = field(default_factory=list)

    def seconds(self, flops: float) -> float:
        """Predicts how long so many operations take."""
        return flops / (self.peak * self.share)

    @property
    def share(self) -> float:
        """The share of the peak that is expected."""
        return max(self.shares, default=1.0)

    @property
    def words(self) -> str:
        """How a time is predicted."""
        if not self.shares:
            return "computed at the whole peak, of which nothing was measured: at least"
        return f"computed at {self.share:.0%} of the peak, as measured"

    def see(self, flops: float, seconds: float) -> float:
        """Takes up a measurement and returns its share of the peak."""
        self.shares.append(flops / seconds / self.peak)
        return self.shares[-1]
