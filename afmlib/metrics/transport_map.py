r"""The map of a generator, compared with the optimal transport.

Adversarial flow models claim more than the right distribution. Of all maps :math:`G` from noise
:math:`z` to data, they learn the one of least cost :math:`\mathbb{E} \, \| G(z) - z \|^2`. If the
optimal map :math:`T` is known, both claims can be measured separately.

References:
    | Adversarial Flow Models (Lin et al., 2025), Sec. 3.2 and Fig. 2
    | https://arxiv.org/abs/2511.22475
"""

__all__ = ["TransportMap", "wasserstein_1", "wasserstein_2"]

from typing import ClassVar

import torch

from afmlib.interfaces import Dataset, Evaluation, EvaluationSetup, Metric, Number, PointDataset
from afmlib.typing import Latents


def wasserstein_1(points: Latents, others: Latents) -> float:
    r"""Computes :math:`W_1` between two sets of points on the line, by sorting.

    Example:
        >>> wasserstein_1(torch.tensor([[0.0], [1.0]]), torch.tensor([[3.0], [2.0]]))
        2.0
    """
    from scipy.stats import wasserstein_distance

    return float(wasserstein_distance(points.flatten().numpy(), others.flatten().numpy()))


def wasserstein_2(points: Latents, others: Latents) -> float:
    r"""Computes :math:`W_2` between two sets of equally many points, by an exact assignment.

    Example:
        >>> points = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
        >>> wasserstein_2(points, points.flip(0) + torch.tensor([0.0, 2.0]))
        2.0
    """
    from scipy.optimize import linear_sum_assignment

    costs = torch.cdist(points.double(), others.double()).square().numpy()
    return float(costs[linear_sum_assignment(costs)].mean() ** 0.5)


class TransportMap(Metric):
    """Measures the distribution and the map of a generator of points.

    ``wasserstein`` is the distance of the samples to held-out points: :math:`W_1` on the line and
    :math:`W_2` elsewhere. ``wasserstein_floor`` is that of equally many training points.
    ``map_rmse`` is the root mean square distance to the targets of the optimal transport.
    ``transport_cost`` is the mean squared distance between noise and sample, ``optimal_cost`` that
    of the optimal transport of the same noises, and ``relative_cost`` their ratio.

    Args:
        max_points: The maximum number of samples for an exact assignment.

    Raises:
        ValueError: If ``max_points`` is not positive.
    """

    distances = frozenset({"wasserstein", "map_rmse"})
    numbers: ClassVar = {
        "wasserstein": Number(
            "Wasserstein distance",
            "lower",
            log=True,
            meaning="between samples and held-out points",
        ),
        "wasserstein_floor": Number(
            "Wasserstein floor", meaning="the same distance for training points"
        ),
        "map_rmse": Number(
            "map error",
            "lower",
            log=True,
            meaning="root mean square distance to the optimal transport map",
        ),
        "transport_cost": Number(
            "transport cost", meaning="mean squared distance between noise and sample"
        ),
        "optimal_cost": Number("optimal cost", meaning="that of the optimal transport"),
        "relative_cost": Number(
            "relative cost", best=1.0, meaning="transport cost divided by the optimal cost"
        ),
    }
    requires = frozenset({"samples", "noises"})

    def __init__(self, max_points: int = 2000) -> None:
        if max_points < 1:
            raise ValueError(f"max_points must be at least 1, got {max_points}.")
        self.max_points = max_points

    def check_setup(self, setup: EvaluationSetup) -> None:
        """Raises if the data or the number of samples does not fit."""
        dataset = setup.need_dataset()
        if not isinstance(dataset, PointDataset):
            raise ValueError(f"the optimal transport to {type(dataset).__name__} is unknown")

    def __call__(self, evaluation: Evaluation) -> dict[str, float]:
        """Computes the numbers.

        Raises:
            ValueError: If the optimal transport or the noises are unknown.
        """
        dataset, noises = evaluation.need_dataset(), evaluation.noises
        if not isinstance(dataset, PointDataset):
            raise ValueError(f"the optimal transport to {type(dataset).__name__} is unknown")
        if noises is None:
            raise ValueError("the noises of the samples are unknown")
        count = len(noises)
        if not _on_line(noises):
            count = min(count, self.max_points)
        samples, noises = evaluation.need_samples()[:count].double(), noises[:count].double()
        held_out = evaluation.held_out
        return _distances(samples, dataset, held_out) | _costs(samples, noises, dataset)


def _distances(samples: Latents, dataset: Dataset, held_out: Dataset | None) -> dict[str, float]:
    training = _points(dataset, len(samples))
    if held_out is None:
        return {"wasserstein": _distance(samples, training)}
    # On the line the sizes may differ, and the larger set is less noisy.
    real = _points(held_out, len(held_out) if _on_line(samples) else len(samples))
    return {
        "wasserstein": _distance(samples, real),
        "wasserstein_floor": _distance(training, real),
    }


def _on_line(points: Latents) -> bool:
    return points.shape[1:] == (1,)


def _points(dataset: Dataset, count: int) -> Latents:
    stored, _ = dataset.__getitems__(list(range(min(count, len(dataset)))))
    return dataset.augment(stored, None)


def _distance(points: Latents, others: Latents) -> float:
    if _on_line(points):
        return wasserstein_1(points, others)
    count = min(len(points), len(others))
    return wasserstein_2(points[:count], others[:count])


def _costs(samples: Latents, noises: Latents, dataset: PointDataset) -> dict[str, float]:
    targets = dataset.optimal_targets(noises)
    cost = (samples - noises).square().sum(1).mean().item()
    optimal_cost = (targets - noises).square().sum(1).mean().item()
    return {
        "map_rmse": (samples - targets).square().sum(1).mean().sqrt().item(),
        "transport_cost": cost,
        "optimal_cost": optimal_cost,
        "relative_cost": cost / optimal_cost,
    }
