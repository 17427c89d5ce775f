"""Evaluations in the course of a run."""

__all__ = ["EvaluationHook"]

from typing import Any

from mmengine.hooks import Hook

from afmlib import processes
from afmlib.config import EvaluationConfig
from afmlib.engine.json_lines import JsonLines
from afmlib.evaluation.classifier import evaluate_average


class EvaluationHook(Hook):
    """Evaluates the averaged network and writes the numbers down with their protocol.

    Args:
        path: The file, one line of JSON per evaluation: a path or a URL.
        every: Images between two evaluations; only the end of the run if None.
        config: The protocol.
    """

    def __init__(self, path: str, every: int | None, config: EvaluationConfig) -> None:
        self.file = JsonLines(path)
        self.every = every
        self.config = config

    def before_train(self, runner: Any) -> None:
        """Cuts the file back; makes up for what a run killed after its checkpoint left out."""
        num_images = runner.train_loop.num_images
        if processes.rank() == 0:
            self.file.cut_back(num_images)
        is_there = processes.from_first(num_images in self.file.images())
        if num_images and not is_there and self._is_due(runner):
            self.evaluate(runner)

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Evaluates when it is time."""
        if self._is_due(runner):
            self.evaluate(runner)

    def _is_due(self, runner: Any) -> bool:
        return bool(self.config.metrics) and runner.train_loop.is_due(self.every)

    def evaluate(self, runner: Any) -> None:
        """Evaluates and writes the numbers down."""
        num_images = runner.train_loop.num_images
        result = None
        with runner.evaluating():
            result = evaluate_average(runner.objective, runner.dataset, self.config)
        if result is None:  # There is one in the first of several processes, if not abandoned.
            return
        numbers = {f"evaluation/{name}": value for name, value in result["values"].items()}
        runner.visualizer.add_scalars(numbers, step=num_images)
        self.file.append({"num_images": num_images, **result})
        self.file.flush()
        runner.report(
            f"evaluation at {num_images} images: "
            + ", ".join(f"{name} {value:.3f}" for name, value in result["values"].items())
        )
