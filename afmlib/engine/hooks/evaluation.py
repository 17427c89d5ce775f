"""Evaluations in the course of a run."""

__all__ = ["EvaluationHook"]

import json
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook

from afmlib.config import EvaluationConfig
from afmlib.engine.evaluation import evaluate_model


class EvaluationHook(Hook):
    """Evaluates the averaged generator and writes the numbers down with their protocol.

    Args:
        path: The file, one line of JSON per evaluation.
        every: Images between two evaluations; only the end of the run if None.
        config: The protocol.
    """

    def __init__(self, path: Path, every: int | None, config: EvaluationConfig) -> None:
        self.path = path
        self.every = every
        self.config = config

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Evaluates when it is time."""
        loop = runner.train_loop
        if not self.config.metrics or not loop.is_due(self.every):
            return
        result = evaluate_model(runner.objective.sample_model, runner.dataset, self.config)
        numbers = {f"evaluation/{name}": value for name, value in result["values"].items()}
        runner.visualizer.add_scalars(numbers, step=loop.num_images)
        with self.path.open("a") as file:
            file.write(json.dumps({"num_images": loop.num_images, **result}) + "\n")
        runner.report(
            f"evaluation at {loop.num_images} images: "
            + ", ".join(f"{name} {value:.3f}" for name, value in result["values"].items())
        )
