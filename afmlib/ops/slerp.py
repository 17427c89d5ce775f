r"""Spherical interpolation: the path between two noises that stays where noises are.

In many dimensions a standard normal noise has a norm close to :math:`\sqrt{n}`. The straight path
between two of them passes through vectors that are shorter by up to :math:`\sqrt 2`, which no
generator was trained on. The great circle does not: with the angle :math:`\Omega` between
:math:`a` and :math:`b` and :math:`r_u = (1 - u) \|a\| + u \|b\|`,

.. math::
    s_u = r_u \left( \frac{\sin((1 - u) \Omega)}{\sin \Omega} \frac{a}{\|a\|}
        + \frac{\sin(u \Omega)}{\sin \Omega} \frac{b}{\|b\|} \right) ,

so that :math:`\|s_u\| = r_u`, and the angle to :math:`a` is :math:`u \Omega`.

References:
    | Animating Rotation with Quaternion Curves (Shoemake, 1985)
    | https://doi.org/10.1145/325165.325242

    | Adversarial Flow Models (Lin et al., 2025), Fig. 10
    | https://arxiv.org/abs/2511.22475
"""

__all__ = ["slerp"]

import torch
from jaxtyping import Float
from torch import Tensor

from afmlib.ops.flow import expand
from afmlib.typing import Latents


def slerp(start: Latents, end: Latents, fractions: Float[Tensor, " batch"]) -> Latents:
    """Returns what lies on the great circle from ``start`` to ``end``.

    The ends are exact: at 0 it is ``start`` and at 1 ``end``, to the bit. Where both point in one
    direction, the length alone is interpolated.

    Args:
        start: Noises.
        end: As many noises.
        fractions: How far along the way, in [0, 1], one number per sample.

    Raises:
        ValueError: If two noises are opposite, so that no half circle is the shortest one, or one
            is zero, which has no direction.

    Example:
        >>> slerp(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 2.0]]), torch.tensor([0.5]))
        tensor([[1.4142, 1.4142]])
    """
    a, b = start.flatten(1), end.flatten(1)
    lengths_a, lengths_b = a.norm(dim=1), b.norm(dim=1)
    if not (lengths_a * lengths_b > 0).all():
        raise ValueError("A noise of length 0 has no direction to interpolate.")
    angles = _angles(a / lengths_a[:, None], b / lengths_b[:, None])
    sines = angles.sin()
    parallel = sines.abs() < torch.finfo(a.dtype).eps ** 0.5
    if (parallel & (angles > 1)).any():
        raise ValueError("Between two opposite noises no great circle is the shortest.")
    u = fractions.to(a)
    lengths = (1 - u) * lengths_a + u * lengths_b
    sines = torch.where(parallel, 1.0, sines)
    share_a = torch.where(parallel, 1 - u, ((1 - u) * angles).sin() / sines)
    share_b = torch.where(parallel, u, (u * angles).sin() / sines)
    weight_a, weight_b = lengths / lengths_a * share_a, lengths / lengths_b * share_b
    return expand(weight_a, start) * start + expand(weight_b, end) * end


def _angles(a: Tensor, b: Tensor) -> Tensor:
    """Returns the angles between unit vectors; also small ones keep their digits."""
    return 2 * torch.atan2((a - b).norm(dim=1), (a + b).norm(dim=1))
