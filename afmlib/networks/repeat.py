r"""Depth repetition: 28 blocks become 56 or 112 layers with the same parameters.

:class:`RepeatDepth` runs the stack of blocks :math:`R` times over its own hidden state.
:class:`RepeatBlocks` runs each block :math:`R` times before the next. Repetition :math:`r` adds the
embedding of :math:`1 - r / R` to the condition, with the source-time embedder of a multi-step
model. The head sees the condition of the labels only.

References:
    | Adversarial Flow Models (Lin et al., 2025), Sec. 3.8
    | https://arxiv.org/abs/2511.22475
"""

__all__ = ["RepeatBlocks", "RepeatDepth"]

from torch import Tensor

from afmlib.interfaces import DepthWrapper
from afmlib.typing import Labels, Latents, Timesteps


class RepeatDepth(DepthWrapper):
    """Runs the stack of blocks of a generator several times. It is a one-step model."""

    def forward(
        self,
        latents: Latents,
        labels: Labels,
        timesteps_src: Timesteps | None = None,
        timesteps_tgt: Timesteps | None = None,
    ) -> Latents:
        """Maps noise to data in one step; the times are ignored."""
        tokens, condition = self.generator.embed(latents, labels)
        for stage in self.stages(condition):
            tokens = self.run(self._repetition, tokens, stage)
        return self.generator.head(tokens, condition)

    def _repetition(self, tokens: Tensor, stage: Tensor) -> Tensor:
        for index in range(self.generator.num_blocks):
            tokens = self.generator.run_block(index, tokens, stage)
        return tokens


class RepeatBlocks(DepthWrapper):
    """Runs each block of a generator several times before the next. It is a one-step model."""

    def forward(
        self,
        latents: Latents,
        labels: Labels,
        timesteps_src: Timesteps | None = None,
        timesteps_tgt: Timesteps | None = None,
    ) -> Latents:
        """Maps noise to data in one step; the times are ignored."""
        tokens, condition = self.generator.embed(latents, labels)
        stages = self.stages(condition)
        for index in range(self.generator.num_blocks):
            for stage in stages:
                tokens = self.run(self.generator.run_block, index, tokens, stage)
        return self.generator.head(tokens, condition)
