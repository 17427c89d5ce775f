"""The engine: what turns an objective, data and a config into a run, on mmengine's Runner."""

__all__ = [
    "Runner",
    "TrainingError",
    "evaluate_classifier",
    "evaluate_file",
    "evaluate_model",
    "evaluate_samples",
    "join_processes",
    "leave_processes",
    "sample_together",
]

from afmlib.engine.opencv import ensure_importable

ensure_importable()  # Before anything imports mmengine, which imports OpenCV.

from afmlib.engine.launch import join_processes, leave_processes  # noqa: E402
from afmlib.engine.runner import Runner  # noqa: E402
from afmlib.engine.training_metrics import TrainingError  # noqa: E402
from afmlib.evaluation.classifier import evaluate_classifier  # noqa: E402
from afmlib.evaluation.evaluate import evaluate_file, evaluate_model, evaluate_samples  # noqa: E402
from afmlib.evaluation.sampling import sample_together  # noqa: E402
