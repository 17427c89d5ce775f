r"""Fields that move generated features towards real ones, for feature transport.

A problem is one class: :math:`n` generated features, :math:`P` real ones of the class (positives),
and :math:`U` real ones of any class (negatives). A field gives each generated feature a
displacement :math:`V`, without a gradient. Displacements are divided by their root mean square, so
only their directions and relative sizes matter.

References:
    | Drifting (2026), for `Drift`
    | https://arxiv.org/abs/2602.04770

    | Semantic transport (2026), for `Sinkhorn`
    | https://arxiv.org/abs/2606.00514
"""

__all__ = ["Drift", "Sinkhorn"]

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from afmlib.interfaces import TransportField
from afmlib.typing import Scalar

MIN_RMS = 1e-8
"""The smallest number by which a displacement is divided, so that zero stays zero."""

SELF_DISTANCE = 100.0
"""The distance that is added between a generated feature and itself."""

MIN_AFFINITY = 1e-6
"""The smallest product of the two softmaxes: its root, 1e-3, attracts from far away."""


class Drift(TransportField):
    r"""The field of Drifting as its authors' code computes it, which differs from the paper.

    The targets :math:`y` are the generated features, the negatives and the positives, with the
    weights 1, :math:`(\alpha - 1)(n - 1) / U` and 1. Distances are divided by one scale :math:`s`,
    their weighted mean over all problems. For each radius :math:`R`,

    .. math::
        A_{ij} &= w_j \sqrt{\max\big(\operatorname{softmax}_j(-d_{ij} / R) \,
            \operatorname{softmax}_i(-d_{ij} / R), 10^{-6}\big)} \\
        c_{ij} &= A_{ij} \sum_{k \in \text{neg}} A_{ik} \text{ for positives}, \qquad
        c_{ij} = -A_{ij} \sum_{k \in \text{pos}} A_{ik} \text{ for the others} \\
        V_i &= \sum_j c_{ij} (y_j - x_i)

    The field is divided by its root mean square over all problems.

    Args:
        radii: The radii :math:`R`, in units of the scale. Their fields are summed.

    Raises:
        ValueError: If there are none, or one is not positive.
    """

    def __init__(self, radii: Sequence[float] = (0.02, 0.05, 0.2)) -> None:
        self.radii = _positive("radii", radii)

    def __call__(
        self,
        generated: Float[Tensor, " problems n d"],
        positives: Float[Tensor, " problems positives d"],
        negatives: Float[Tensor, " negatives d"],
        guidance: Float[Tensor, " problems n"],
    ) -> tuple[Scalar, Float[Tensor, " problems n d"], Scalar]:
        problems, n, size = generated.shape
        others = negatives.expand(problems, *negatives.shape)
        targets = torch.cat([generated, others, positives], 1)  # (problems, n + U + P, d)
        columns = [generated.new_ones(problems, n, n), generated.new_ones(problems, n, 1)]
        excess = (guidance - 1) * (n - 1) / max(len(negatives), 1)
        weights = torch.cat(
            [
                columns[0],
                excess[:, :, None].expand(-1, -1, len(negatives)),
                columns[1].expand(-1, -1, positives.shape[1]),
            ],
            2,
        )
        distances = _squares(generated, targets).clamp(min=1e-8).sqrt()
        mean = (distances * weights).mean() / weights.mean()
        scale = (mean / math.sqrt(size)).clamp(min=1e-3)
        points, targets = generated / scale, targets / scale
        distances = distances / mean.clamp(min=1e-3)
        distances[:, :, :n].diagonal(dim1=1, dim2=2).add_(SELF_DISTANCE)
        num_others = n + len(negatives)
        total, forces = torch.zeros_like(points), []
        for radius in self.radii:
            logits = -distances / radius
            product = logits.softmax(2) * logits.softmax(1)
            affinities = product.clamp(min=MIN_AFFINITY).sqrt() * weights
            other, same = affinities[:, :, :num_others], affinities[:, :, num_others:]
            coefficients = torch.cat(
                [-other * same.sum(2, keepdim=True), same * other.sum(2, keepdim=True)], 2
            )
            force = coefficients @ targets - coefficients.sum(2, keepdim=True) * points
            rms = force.square().mean().sqrt()
            total = total + force / rms.clamp(min=MIN_RMS)
            forces.append(rms)
        return scale, total, torch.stack(forces).mean()


class Sinkhorn(TransportField):
    r"""The difference of entropic transport plans, as the authors of semantic transport compute it.

    With the barycenters :math:`T` of the plans from generated features :math:`q` to positives
    :math:`p`, negatives :math:`u`, and one another without themselves,

    .. math:: V = (1 + w) \, T_{qp} - w \, T_{qu} - T_{qq} , \qquad w = \alpha - 1

    Costs are squared distances in units of the mean distance to the positives, divided by
    :math:`\sqrt d`. The entropy is :math:`\tau` times the std of the costs to the positives. Each
    problem's field is divided by its own root mean square.

    Args:
        entropies: The numbers :math:`\tau`. Their fields are summed.

    Raises:
        ValueError: If there are none, or one is not positive.

    Note:
        The authors initialize the potentials from the previous update, which had other samples and
        classes. Here they start from zero.
    """

    def __init__(self, entropies: Sequence[float] = (0.02, 0.05, 0.2)) -> None:
        self.entropies = _positive("entropies", entropies)

    def __call__(
        self,
        generated: Float[Tensor, " problems n d"],
        positives: Float[Tensor, " problems positives d"],
        negatives: Float[Tensor, " negatives d"],
        guidance: Float[Tensor, " problems n"],
    ) -> tuple[Scalar, Float[Tensor, " problems n d"], Scalar]:
        problems, n, size = generated.shape
        mean = _squares(generated, positives).clamp(min=1e-8).sqrt().mean()
        scale = (mean / math.sqrt(size)).clamp(min=1e-3)
        own, same = generated / scale, positives / scale
        others = (negatives / scale).expand(problems, *negatives.shape)
        costs = _squares(own, same)
        between = _squares(own, own)
        between.diagonal(dim1=1, dim2=2).fill_(math.inf)
        excess = (guidance - 1)[:, :, None]
        total, forces = torch.zeros_like(own), []
        for entropy in self.entropies:
            eps = entropy * costs.std(correction=0).clamp(min=1e-8)
            force = (1 + excess) * _barycenters(costs / eps, same)
            if len(negatives):
                force = force - excess * _barycenters(_squares(own, others) / eps, others)
            force = force - (_own_barycenters(between / eps, own) if n > 1 else own)
            rms = force.square().mean((1, 2), keepdim=True).sqrt()
            total = total + force / rms.clamp(min=MIN_RMS)
            forces.append(rms.mean())
        return scale, total, torch.stack(forces).mean()


def _squares(first: Tensor, second: Tensor) -> Tensor:
    """Returns squared distances from differences: a product of matrices would lose digits."""
    return torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist").square()


def _barycenters(costs: Tensor, targets: Tensor) -> Tensor:
    """Returns the mean target of each row, after four iterations for uniform marginals."""
    rows, columns = costs.new_zeros(costs.shape[:2]), costs.new_zeros(costs.shape[::2])
    for _ in range(4):
        rows = -(columns[:, None, :] - costs - math.log(costs.shape[2])).logsumexp(2)
        columns = -(rows[:, :, None] - costs - math.log(costs.shape[1])).logsumexp(1)
    return (columns[:, None, :] - costs).softmax(2) @ targets


def _own_barycenters(costs: Tensor, points: Tensor) -> Tensor:
    """Returns the same for points among themselves, whose two potentials are equal."""
    potentials = costs.new_zeros(costs.shape[:2])
    for _ in range(2):
        new = -(potentials[:, None, :] - costs - math.log(costs.shape[2])).logsumexp(2)
        potentials = (potentials + new) / 2
    return (potentials[:, None, :] - costs).softmax(2) @ points


def _positive(name: str, numbers: Sequence[float]) -> list[float]:
    if not numbers or not min(numbers) > 0:
        raise ValueError(f"{name} must be positive, at least one, got {list(numbers)}.")
    return [float(number) for number in numbers]
