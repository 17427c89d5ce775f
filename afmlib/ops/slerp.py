r"""Spherical interpolation between two noises.

In many dimensions a standard normal noise has a norm close to :math:`\sqrt{n}`. The straight path
between two noises passes through vectors that are shorter by up to :math:`\sqrt 2`. A generator was
not trained on these. The great circle keeps the norm. With the angle :math:`\Omega` between
:math:`a` and :math:`b` and :math:`r_u = (1 - u) \|a\| + u \|b\|`, it is

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
    """Returns points on the great circles from ``start`` to ``end``.

    The ends are bit-exact: 0 gives ``start`` and 1 gives ``end``. If both noises have the
    same direction, only the length is interpolated.

    Args:
        start: Noises.
        end: The same number of noises.
        fractions: The positions on the circles, in [0, 1], one per sample.

    Raises:
        ValueError: If two noises are opposite, so that the circle is not unique, or one is zero.

    Example:
        >>> slerp(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 2.0]]), torch.tensor([0.5]))
        tensor([[1.4142, 1.4142]])
    """
    a, b = start.flatten(1), end.flatten(1)
    lengths_a, lengths_b = a.norm(dim=1), b.norm(dim=1)
    if not (lengths_a * lengths_b > 0).all():
        raise ValueError("A noise of length 0 has no direction to interpolate.")
    unit_a, unit_b = a / lengths_a[:, None], b / lengths_b[:, None]
    # Unlike acos of the product, this keeps the digits of small angles.
    angles = 2 * torch.atan2((unit_a - unit_b).norm(dim=1), (unit_a + unit_b).norm(dim=1))
    sines = angles.sin()
    parallel = sines.abs() < torch.finfo(a.dtype).eps ** 0.5
    if (parallel & (angles > 1)).any():
        raise ValueError("Two noises are opposite, so the great circle between them is not unique.")
    u = fractions.to(a)
    lengths = (1 - u) * lengths_a + u * lengths_b
    sines = torch.where(parallel, 1.0, sines)
    share_a = torch.where(parallel, 1 - u, ((1 - u) * angles).sin() / sines)
    share_b = torch.where(parallel, u, (u * angles).sin() / sines)
    weight_a, weight_b = lengths / lengths_a * share_a, lengths / lengths_b * share_b
    return expand(weight_a, start) * start + expand(weight_b, end) * end
