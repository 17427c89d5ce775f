"""The tensor types of the library, used in all signatures."""

__all__ = [
    "Critic",
    "Labels",
    "Latents",
    "Logits",
    "PerSample",
    "Scalar",
    "Timesteps",
]

from collections.abc import Callable
from typing import TypeAlias

from jaxtyping import Float, Int
from torch import Tensor

Latents: TypeAlias = Float[Tensor, " batch *latent"]
"""A batch of images or of their autoencoder codes, with unit standard deviation."""

Labels: TypeAlias = Int[Tensor, " batch"]
"""Class indices."""

Timesteps: TypeAlias = Float[Tensor, " batch"]
"""Positions on the flow: 0 is data and 1 is noise."""

Logits: TypeAlias = Float[Tensor, " batch"]
"""Outputs of a discriminator; larger means more real."""

PerSample: TypeAlias = Float[Tensor, " batch"]
"""One unreduced loss value per sample."""

Scalar: TypeAlias = Float[Tensor, ""]
"""A reduced loss value."""

Critic: TypeAlias = Callable[[Latents], Logits]
"""A discriminator with its labels and timesteps bound."""
