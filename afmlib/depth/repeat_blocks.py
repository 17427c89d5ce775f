r"""Depth repetition block by block: each runs :math:`R` times before the next.

It is the other order of the repetitions in :mod:`afmlib.depth.repeat_depth`: the same number of
layers, parameters and operations, and the same embedding of :math:`1 - r / R` in repetition
:math:`r`.
"""

__all__ = ["RepeatBlocks"]

from afmlib.interfaces import DepthWrapper
from afmlib.typing import Labels, Latents, Timesteps


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
