"""What tables a report has, in their order, whatever they are drawn on."""

__all__ = ["sections"]

from collections.abc import Mapping
from typing import Any

from .cost import speed_tables
from .tables import Table, quality_tables


def sections(results: Mapping[str, Any]) -> dict[str, list[Table]]:
    """Returns the tables of each section of a report, by its heading."""
    return {"Quality": quality_tables(results), "Speed and size": speed_tables(results)}
