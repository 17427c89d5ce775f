"""The training loop, which counts images instead of iterations."""

__all__ = ["ImageLoop"]

from types import MappingProxyType
from typing import Any

from mmengine.runner import BaseLoop

from afmlib import processes
from afmlib.engine.step import TrainingStep


class ImageLoop(BaseLoop):
    """Runs iterations until the generator has seen as many images as the config says.

    Args:
        runner: The runner.
        step: Runs one iteration.
    """

    def __init__(self, runner: Any, step: TrainingStep) -> None:
        super().__init__(runner, MappingProxyType(step.batches))  # A dict would be a config.
        self.step = step
        self.objective = step.objective
        players = list(step.updates)
        self.last_player = "generator" if "generator" in players else players[-1]
        batch = step.batches[self.last_player].layout.global_batch
        self.images_per_iter = batch * step.updates[self.last_player]
        self.is_over = False

    @property
    def num_images(self) -> int:
        """Images seen by the generator, or by the last player if there is no generator."""
        return self.step.batches[self.last_player].num_images

    def start_at(self, num_images: int) -> None:
        """Sets the number of images that the generator has seen. Call it before training."""
        iterations = num_images // self.images_per_iter
        for player, updates in self.step.updates.items():
            batches = self.step.batches[player]
            batches.start_at(iterations * updates * batches.layout.global_batch)

    @property
    def total_images(self) -> int:
        """Length of the run."""
        assert self.objective.total_images is not None
        return self.objective.total_images

    @property
    def iter(self) -> int:
        """Finished iterations."""
        return self.num_images // self.images_per_iter

    @property
    def max_iters(self) -> int:
        """Iterations of the whole run."""
        return -(-self.total_images // self.images_per_iter)

    @property
    def epoch(self) -> int:
        """Always 0: to mmengine, a run is one epoch."""
        return 0

    @property
    def max_epochs(self) -> int:
        """Always 1: to mmengine, a run is one epoch."""
        return 1

    @property
    def has_ended(self) -> bool:
        """Whether the run has its full length, or a phase controller has ended it."""
        return self.is_over or self.num_images >= self.total_images

    def is_due(self, every: int | None) -> bool:
        """Returns whether this iteration reached a multiple of ``every`` images, or the end.

        If so, all numbers of the iteration are finite.

        Raises:
            TrainingError: If one is not, so that nothing is written about it.
        """
        before = self.num_images - self.images_per_iter
        passed = every is not None and self.num_images // every > before // every
        if passed or self.has_ended:
            self.step.check()
            return True
        return False

    def run(self) -> Any:
        """Trains to the end."""
        self.runner.call_hook("before_train")
        self.runner.call_hook("before_train_epoch")
        self.objective.train()
        self.objective.ema.eval()
        while not self.has_ended and not processes.any_of(self.runner.stop_requested):
            self.run_iter()
        self.step.check()
        self.runner.call_hook("after_train_epoch")
        self.runner.call_hook("after_train")
        return self.objective

    def run_iter(self) -> None:
        """Runs one iteration, between the hooks."""
        index = self.iter
        self.runner.call_hook("before_train_iter", batch_idx=index, data_batch=None)
        numbers = self.step()
        self.objective.num_images = self.num_images
        self.runner.call_hook("after_train_iter", batch_idx=index, data_batch=None, outputs=numbers)
