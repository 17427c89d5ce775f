"""What happens between iterations: progress, logs, sample grids, evaluations, checkpoints."""

__all__ = ["CheckpointHook", "EvaluationHook", "LogHook", "PhaseHook", "ProgressHook", "SampleHook"]

from afmlib.engine.hooks.checkpoint import CheckpointHook
from afmlib.engine.hooks.evaluation import EvaluationHook
from afmlib.engine.hooks.log import LogHook
from afmlib.engine.hooks.phases import PhaseHook
from afmlib.engine.hooks.progress import ProgressHook
from afmlib.engine.hooks.samples import SampleHook
