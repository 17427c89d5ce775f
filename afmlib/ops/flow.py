r"""The straight path from data to noise, and the width of a step on it.

.. math:: x_t = (1 - t) \, x + t \, z , \qquad w(s, t) = \max(|s - t|, 0.001)

References:
    | Adversarial Flow Models (Lin et al., 2025), Sec. 3.3
    | https://arxiv.org/abs/2511.22475
"""

__all__ = ["MIN_STEP_WIDTH", "expand", "interpolate", "step_width"]

from torch import Tensor

from afmlib.typing import Latents, PerSample, Timesteps

MIN_STEP_WIDTH = 0.001
"""The smallest width of a step, so that no loss is divided by zero."""


def expand(per_sample: Tensor, like: Tensor) -> Tensor:
    """Reshapes one number per sample so that it multiplies a batch."""
    return per_sample.to(like.dtype).reshape(-1, *(1,) * (like.ndim - 1))


def interpolate(latents: Latents, noises: Latents, timesteps: Timesteps) -> Latents:
    """Returns the points at ``timesteps`` between data (0) and noise (1)."""
    t = expand(timesteps, latents)
    return (1 - t) * latents + t * noises


def step_width(timesteps_src: Timesteps, timesteps_tgt: Timesteps) -> PerSample:
    """Returns the width :math:`w(s, t)` of a step."""
    return (timesteps_src - timesteps_tgt).abs().clamp(min=MIN_STEP_WIDTH)
