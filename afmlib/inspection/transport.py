r"""The paths of noises through a model of points, compared with the optimal transport.

The path of a noise :math:`z` has one point per network evaluation, from :math:`x_1 = z` at time 1
to the sample :math:`x_0` at time 0. If the optimal map :math:`T` is known,

.. math::
    \text{cost} = \tfrac{1}{n} \textstyle\sum_i \| x_{0,i} - z_i \|^2 , \qquad
    \text{distance to the map} = \sqrt{\tfrac{1}{n} \textstyle\sum_i \| x_{0,i} - T(z_i) \|^2} ,

as in the metric :class:`afmlib.metrics.transport_map.TransportMap`.

References:
    | Adversarial Flow Models (Lin et al., 2025), Fig. 1 to 3
    | https://arxiv.org/abs/2511.22475
"""

__all__ = ["Transport", "measure_transport"]

from dataclasses import dataclass

import torch
from torch import Tensor

from afmlib.data.overlapping_gaussians import OverlappingGaussians
from afmlib.interfaces import Dataset, PointDataset, SampleModel
from afmlib.ops.seeding import indexed_noises
from afmlib.ops.time_grid import sampling_times
from afmlib.sampling import evaluating
from afmlib.typing import Labels, Latents


@dataclass(frozen=True)
class Transport:
    """The paths of one model, in float64."""

    name: str
    """The name of the model."""

    path: Tensor
    """The points, (evaluations + 1, noises, dimensions)."""

    labels: Labels
    """The class of each noise."""

    targets: Latents | None
    """The optimal sample of each noise; None if unknown."""

    data: Latents
    """Points of the data, at most as many as noises."""

    @property
    def nfe(self) -> int:
        return len(self.path) - 1

    @property
    def times(self) -> list[float]:
        """The time of each point of a path, from 1 to 0."""
        return sampling_times(self.nfe)

    @property
    def noises(self) -> Latents:
        """The first point of each path."""
        return self.path[0]

    @property
    def samples(self) -> Latents:
        """The last point of each path."""
        return self.path[-1]

    @property
    def cost(self) -> float:
        """The mean squared distance from noise to sample."""
        return _mean_square(self.samples - self.noises)

    @property
    def optimal_cost(self) -> float | None:
        """The cost of the optimal transport; None if unknown."""
        return None if self.targets is None else _mean_square(self.targets - self.noises)

    @property
    def map_rmse(self) -> float | None:
        """The root mean square distance to the optimal samples; None if unknown."""
        return None if self.targets is None else _mean_square(self.samples - self.targets) ** 0.5

    def chosen(self, count: int) -> Tensor:
        """Returns the rows of at most ``count`` paths; on the line, evenly spaced by rank."""
        count = min(count, len(self.noises))
        if self.path.shape[2] > 1:
            return torch.arange(count)
        order = self.noises[:, 0].argsort(stable=True)
        return order[torch.linspace(0, len(order) - 1, count).round().long()]

    @property
    def caption(self) -> str:
        """The numbers as text."""
        text = f"transport cost {self.cost:.3f}"
        if self.optimal_cost is not None and self.map_rmse is not None:
            text += f" (optimal {self.optimal_cost:.3f})\nmap error {self.map_rmse:.3f}"
        return text


def _mean_square(offsets: Tensor) -> float:
    return offsets.square().sum(1).mean().item()


def measure_transport(
    name: str,
    model: SampleModel,
    dataset: Dataset,
    num: int = 2000,
    seed: int = 0,
    nfe: int | None = None,
) -> Transport:
    """Samples a model of points and records the paths.

    Args:
        name: The name of the model.
        model: The model.
        dataset: The training data of the model.
        num: The number of noises. They are those of :func:`afmlib.sample`. In two dimensions, the
            time for the exact transport plan grows with the cube of this number.
        seed: The seed of the noises.
        nfe: The number of network evaluations. Defaults to that of the model.

    Raises:
        ValueError: If the data are not points in one or two dimensions, or ``num`` is not positive.
    """
    if num < 1:
        raise ValueError(f"num must be at least 1, got {num}.")
    shape = tuple(dataset.latent_shape)
    if shape not in ((1,), (2,)):
        raise ValueError(
            "Transport figures need points in one or two dimensions, but a sample of "
            f"{name} has shape {shape}."
        )
    weights = next(model.parameters(), torch.empty(0))
    noises = indexed_noises(seed, range(num), shape).to(weights)
    labels = torch.arange(num) % dataset.num_classes

    def draw_noises(step: int) -> Tensor:
        return indexed_noises(seed, range(num), shape, step).to(weights)

    with evaluating(model.generator), torch.inference_mode():
        steps = model.path(noises, labels.to(weights.device), nfe, draw_noises)
        path = torch.stack([latents.double().cpu() for latents in steps])
    targets = _targets(dataset, path[0], labels)
    data, _ = dataset.__getitems__(list(range(min(num, len(dataset)))))
    return Transport(name, path.clone(), labels, targets, dataset.augment(data, None).double())


def _targets(dataset: Dataset, noises: Latents, labels: Labels) -> Latents | None:
    if isinstance(dataset, PointDataset):
        return dataset.optimal_targets(noises)
    if isinstance(dataset, OverlappingGaussians):
        return dataset.optimal_map(noises, labels)
    return None
