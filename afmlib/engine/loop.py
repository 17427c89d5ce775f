"""The training loop, which counts images and not iterations."""

__all__ = ["ImageLoop"]

from types import MappingProxyType
from typing import Any

from mmengine.runner import BaseLoop

from afmlib import processes
from afmlib.engine.batches import PlayerBatches
from afmlib.interfaces import Objective


class ImageLoop(BaseLoop):
    """Runs iterations until the generator has seen as many images as the config says.

    Args:
        runner: The runner.
        batches: The minibatches of each player.
        objective: What is trained.
    """

    def __init__(
        self, runner: Any, batches: dict[str, PlayerBatches], objective: Objective
    ) -> None:
        super().__init__(runner, MappingProxyType(batches))  # mmengine takes a dict for a config.
        self.objective = objective
        self.last_player = "generator" if "generator" in batches else list(batches)[-1]
        batch = batches[self.last_player].shares.global_batch
        self.images_per_iter = batch * objective.players[self.last_player]
        self.is_over = False

    @property
    def num_images(self) -> int:
        """Images seen by the generator, or by the last player where there is none."""
        return int(self.dataloader[self.last_player].num_images)

    def start_at(self, num_images: int) -> None:
        """Goes on where the generator has seen so many images, before the first iteration."""
        iterations = num_images // self.images_per_iter
        for player, updates in self.objective.players.items():
            batches = self.dataloader[player]
            batches.start_at(iterations * updates * batches.shares.global_batch)

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
        """Always 0: a run is one epoch to mmengine."""
        return 0

    @property
    def max_epochs(self) -> int:
        """Always 1: a run is one epoch to mmengine."""
        return 1

    @property
    def has_ended(self) -> bool:
        """Whether the run has its length, or a phase controller has ended it before."""
        return self.is_over or self.num_images >= self.total_images

    def is_due(self, every: int | None) -> bool:
        """Tells whether this iteration reached a multiple of so many images, or the end."""
        if self.has_ended:
            return True
        if every is None:
            return False
        return self.num_images // every > (self.num_images - self.images_per_iter) // every

    def run(self) -> Any:
        """Trains to the end."""
        self.runner.call_hook("before_train")
        self.runner.call_hook("before_train_epoch")
        self.runner.model.train()
        self.objective.average.eval()
        while not self.has_ended and not processes.any_of(self.runner.stop_requested):
            self.run_iter()
        self.runner.call_hook("after_train_epoch")
        self.runner.call_hook("after_train")
        return self.runner.model

    def run_iter(self) -> None:
        """Runs one iteration."""
        index = self.iter
        self.runner.call_hook("before_train_iter", batch_idx=index, data_batch=None)
        outputs = self.runner.model.train_step(
            self.dataloader, optim_wrapper=self.runner.optim_wrapper
        )
        self.objective.num_images = self.num_images
        self.runner.call_hook("after_train_iter", batch_idx=index, data_batch=None, outputs=outputs)
