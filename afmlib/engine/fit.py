"""Whether networks fit the data and one another, found out before a run begins."""

__all__ = ["check_fit"]

import torch

from afmlib.config import ConfigError
from afmlib.interfaces import Dataset, Objective
from afmlib.ops.seeding import generator_for


def check_fit(objective: Objective, dataset: Dataset) -> None:
    """Computes the terms of every player once, on two samples.

    Raises:
        ConfigError: Says what does not fit.
    """
    generator = objective.generator
    shape = generator.latent_shape
    if shape is not None and tuple(shape) != tuple(dataset.latent_shape):
        raise ConfigError(
            f"The generator makes samples of shape {tuple(shape)}; the data are of "
            f"{tuple(dataset.latent_shape)}."
        )
    if generator.num_classes is not None and generator.num_classes < dataset.num_classes:
        raise ConfigError(
            f"The generator knows {generator.num_classes} classes; the data have "
            f"{dataset.num_classes}."
        )
    stored, _ = dataset.__getitems__([0, 0])
    parameter = next(objective.parameters(), torch.empty(0))
    latents = dataset.augment(stored, None).to(parameter)
    labels = torch.full((2,), dataset.num_classes - 1, device=parameter.device)
    for player in objective.players:
        try:
            with torch.random.fork_rng():
                draws = objective.draw(latents, generator_for(0))
                objective.terms(player, latents, labels, draws)
        except (RuntimeError, IndexError) as error:
            raise ConfigError(
                f"The networks do not fit the data or one another: in the terms of the {player}, "
                f"{str(error).splitlines()[0]}"
            ) from error
