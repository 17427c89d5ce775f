"""The engine: what turns an objective, data and a config into a run, on mmengine's Runner."""

__all__ = ["Runner", "TrainingError", "evaluate_model"]

from afmlib.engine.evaluation import evaluate_model
from afmlib.engine.objective_model import TrainingError
from afmlib.engine.runner import Runner
