"""All that is random in one update of adversarial flow."""

__all__ = ["AdversarialFlowDraws"]

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from afmlib.typing import Latents, Timesteps


@dataclass
class AdversarialFlowDraws:
    """What :meth:`AdversarialFlow.draw` returns, a flat record of tensors."""

    noises_src: Latents
    """The noise in the source samples."""

    noises_tgt: Latents
    """The noise in the real samples at the target time."""

    timesteps_src: Timesteps
    """Where the generator starts."""

    timesteps_tgt: Timesteps
    """Where it ends."""

    noises_r1: Float[Tensor, " penalized *latent"]
    """Directions of the penalty on real samples, for the penalized part of the batch."""

    noises_r2: Float[Tensor, " penalized *latent"]
    """Directions of the penalty on generated samples, for the penalized part of the batch."""

    noises_cg: Latents | None = None
    """Noises for the guidance."""

    timesteps_cg: Timesteps | None = None
    """Times for the guidance, within its range."""

    augmentation: Tensor | None = None
    """Parameters of the augmentation, one row per pair."""
