"""Several settings by several metrics: their numbers, and a figure with a panel per metric."""

__all__ = ["MetricGrid"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..drawing import by_setting, panels
from ..evidence import Evidence


@dataclass(frozen=True)
class MetricGrid:
    """What is compared, and by which numbers."""

    settings: Mapping[str, tuple[str, int]]
    """A run and a number of steps of its samples, by a name in plain words."""

    metrics: Mapping[str, str]
    """The words for each metric."""

    labels: Sequence[str]
    """A short name of each setting, to stand below its column."""

    def name(self, setting: str, metric: str) -> str:
        """Returns what a number is called."""
        return f"{setting}: {self.metrics[metric]}"

    def measure(self, evidence: Evidence) -> dict[str, list[float]]:
        """Takes each metric of each setting."""
        return {
            self.name(setting, metric): evidence.values(text, metric, nfe)
            for metric in self.metrics
            for setting, (text, nfe) in self.settings.items()
        }

    def draw(self, evidence: Evidence) -> Any:
        """Draws a panel per metric."""
        figure, axes = panels(len(self.metrics), 2.6, 2.5)
        for each, (metric, words) in zip(axes, self.metrics.items(), strict=True):
            settings = {
                label: evidence.values(text, metric, nfe)
                for label, (text, nfe) in zip(self.labels, self.settings.values(), strict=True)
            }
            by_setting(each, settings, words)
        return figure
