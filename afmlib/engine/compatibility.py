"""Whether networks fit the data and one another, found out before a run begins."""

__all__ = ["check_fit"]

from collections.abc import Mapping

import torch
from torch import Tensor

from afmlib.config import ConfigError
from afmlib.engine.init_weights import COMPARED, check_conventions
from afmlib.engine.layout import BatchLayout
from afmlib.interfaces import Conventions, Dataset, Generator, Objective
from afmlib.ops.draws import take_rows
from afmlib.ops.seeding import generator_for
from afmlib.pretrained import OfficialClassifier, PretrainedClassifier, PretrainedVelocity


def check_fit(objective: Objective, dataset: Dataset, shares: BatchLayout) -> None:
    """Divides what is drawn, and computes the terms of every player once, on two samples.

    Raises:
        ConfigError: Says what does not fit.
        CheckpointError: If a network that was trained before does not fit the data.
    """
    if isinstance(objective.average, Generator):
        _check_generator(objective.average, dataset)
    _check_trained(objective, dataset)
    _check_division(objective, dataset, shares)
    stored, _ = dataset.__getitems__([0, 0])
    parameter = next(objective.parameters(), torch.empty(0))
    latents = dataset.augment(stored, None).to(parameter)
    labels = torch.full((2,), dataset.num_classes - 1, device=parameter.device)
    for player in objective.players:
        try:
            with torch.random.fork_rng(devices=_devices(parameter)):
                draws = objective.draw(latents, generator_for(0))
                terms = objective.terms(player, latents, labels, draws)
        except (RuntimeError, IndexError) as error:
            raise ConfigError(
                f"The networks do not fit the data or one another: in the terms of the {player}, "
                f"{str(error).splitlines()[0]}"
            ) from error
        _check_names(player, terms, objective.observations)


def _check_generator(generator: Generator, dataset: Dataset) -> None:
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


def _check_trained(objective: Objective, dataset: Dataset) -> None:
    """Refuses networks, such as a guidance's, that were trained on data of other conventions."""
    values = (dataset.num_classes, dataset.latent_shape, dataset.latent_scale, Conventions.time)
    conventions = dict(zip(COMPARED, values, strict=True))
    for module in objective.modules():
        if isinstance(module, OfficialClassifier | PretrainedClassifier | PretrainedVelocity):
            stored = {"conventions": module.conventions}
            check_conventions(module.checkpoint, stored, conventions)


def _devices(parameter: Tensor) -> list[torch.device]:
    return [] if parameter.device.type == "cpu" else [parameter.device]


def _check_names(
    player: str, terms: Mapping[str, Tensor], observations: Mapping[str, Tensor]
) -> None:
    own = {"loss", "lr", "gradient_norm"}
    for name in [*(own & terms.keys()), *((own | terms.keys()) & observations.keys())]:
        raise ConfigError(
            f"The {player} would log two numbers as {player}/{name}: name the objective's "
            "otherwise."
        )


def _check_division(objective: Objective, dataset: Dataset, shares: BatchLayout) -> None:
    latents = torch.empty(shares.global_batch, *dataset.latent_shape)
    try:
        draws = objective.draw(latents, generator_for(0))
    except ValueError as error:  # Such as of an augmentation of images, and data that are none.
        raise ConfigError(f"The objective does not fit the data: {error}") from error
    try:
        take_rows(draws, 0, shares.num_slices)
    except ValueError as error:
        raise ConfigError(
            f"The batch cannot be shared: {error}, processes times parts ({shares}). Change "
            "global_batch, micro_batch or what decides on these rows, such as gp_fraction."
        ) from error
