"""From a model or a file of samples to numbers with a protocol."""

__all__ = [
    "EvalProtocol",
    "EvaluationData",
    "EvaluationError",
    "balanced_labels",
    "build_extractor",
    "check_evaluation_setup",
    "decode_latents",
    "evaluate_average",
    "evaluate_classifier",
    "evaluate_file",
    "evaluate_model",
    "evaluate_samples",
    "image_grid",
    "picture",
    "sample_together",
    "save_grid",
    "save_picture",
    "write_reference",
]

from afmlib.evaluation.classifier import evaluate_classifier
from afmlib.evaluation.evaluate import (
    check_evaluation_setup,
    evaluate_average,
    evaluate_file,
    evaluate_model,
    evaluate_samples,
)
from afmlib.evaluation.evaluator import EvaluationError, build_extractor
from afmlib.evaluation.pictures import image_grid, picture, save_grid, save_picture
from afmlib.evaluation.protocol import EvalProtocol, balanced_labels
from afmlib.evaluation.reference import write_reference
from afmlib.evaluation.shards import sample_together
from afmlib.metrics.evaluation import EvaluationData
from afmlib.sampling import decode_latents
