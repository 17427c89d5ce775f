"""Figures of models: interpolation between noises, comparison, transport paths and training curves.

Each figure has one function that computes the numbers and one that draws them.
"""

__all__ = [
    "Block",
    "Interpolation",
    "TrainingRecord",
    "Transport",
    "compare",
    "comparison_picture",
    "interpolate_noises",
    "interpolation_picture",
    "measure_transport",
    "read_training",
    "training_figure",
    "transport_figure",
]

from afmlib.inspection.comparison import Block, compare, comparison_picture
from afmlib.inspection.interpolation import (
    Interpolation,
    interpolate_noises,
    interpolation_picture,
)
from afmlib.inspection.training import TrainingRecord, read_training
from afmlib.inspection.training_figure import training_figure
from afmlib.inspection.transport import Transport, measure_transport
from afmlib.inspection.transport_figure import transport_figure
