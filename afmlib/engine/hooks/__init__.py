"""Hooks between iterations: progress, log, outputs and phases."""

__all__ = [
    "CheckpointHook",
    "DivergenceHook",
    "DurationHook",
    "EvaluationHook",
    "LogHook",
    "PhaseHook",
    "ProgressHook",
    "SampleHook",
]

from afmlib.engine.hooks.log import LogHook
from afmlib.engine.hooks.outputs import CheckpointHook, EvaluationHook, SampleHook
from afmlib.engine.hooks.phases import PhaseHook
from afmlib.engine.hooks.progress import ProgressHook
from afmlib.engine.hooks.start import DivergenceHook, DurationHook
