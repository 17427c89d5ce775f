"""Checks before training that networks, data and batch are compatible."""

__all__ = ["check_compatibility"]

import json

import torch

from afmlib.config import ConfigError
from afmlib.engine.batches import BatchLayout
from afmlib.engine.init_weights import COMPARED
from afmlib.engine.same_run import check_conventions
from afmlib.interfaces import Conventions, Dataset, Generator, Objective, Terms
from afmlib.ops.row_streams import RowStreams
from afmlib.pretrained import OfficialClassifier, PretrainedClassifier, PretrainedVelocity
from afmlib.registry import PARAMETERIZATIONS, ComponentError

RESERVED = {"loss", "lr", "gradient_norm"}
"""Names in the log that are reserved: no term or observation may have them."""


def check_compatibility(objective: Objective, dataset: Dataset, layout: BatchLayout) -> None:
    """Draws a batch, and computes the terms of every player once, on two samples or one group.

    Raises:
        ConfigError: If something does not fit.
        CheckpointError: If a pretrained network does not fit the data.
    """
    if isinstance(objective.ema, Generator):
        _check_generator(objective.ema, dataset)
    values = (dataset.num_classes, dataset.latent_shape, dataset.latent_scale, Conventions.time)
    for module in objective.modules():
        if isinstance(module, OfficialClassifier | PretrainedClassifier | PretrainedVelocity):
            expected = dict(zip(COMPARED, values, strict=True))
            check_conventions(module.checkpoint, {"conventions": module.conventions}, expected)
    _check_parameterization(objective)
    _check_draws(objective, dataset, layout)

    size = len(layout.rows(0))
    if size % objective.group_size:
        raise ConfigError(
            f"A micro-batch of {size} samples is not divisible into groups of "
            f"{objective.group_size}: change global_batch, micro_batch or the number of processes."
        )
    count = max(2, objective.group_size)
    stored, _ = dataset.__getitems__([0] * count)
    weights = next(objective.parameters(), torch.empty(0))
    latents = dataset.augment(stored, None).to(weights)
    labels = torch.full((count,), dataset.num_classes - 1, device=weights.device)
    devices = [] if weights.device.type == "cpu" else [weights.device]
    for player in objective.players:
        try:
            with torch.random.fork_rng(devices=devices):
                draws = objective.draw(latents, _first_rows(player, count, layout))
                terms = objective.terms(player, latents, labels, draws)
        except (IndexError, RuntimeError, ValueError) as error:
            raise ConfigError(
                f"The networks do not fit the data or one another: in the terms of the {player}, "
                f"{str(error).splitlines()[0]}"
            ) from error
        observed = terms.observed if isinstance(terms, Terms) else {}
        for name in [*(RESERVED & terms.keys()), *((RESERVED | terms.keys()) & observed.keys())]:
            raise ConfigError(
                f"The {player} would log two numbers as {player}/{name}: rename the objective's."
            )


def _check_generator(generator: Generator, dataset: Dataset) -> None:
    shape = generator.latent_shape
    if shape is not None and tuple(shape) != tuple(dataset.latent_shape):
        raise ConfigError(
            f"The generator makes samples of shape {tuple(shape)}; the data have shape "
            f"{tuple(dataset.latent_shape)}."
        )
    if generator.num_classes is not None and generator.num_classes < dataset.num_classes:
        raise ConfigError(
            f"The generator has {generator.num_classes} classes; the data have "
            f"{dataset.num_classes}."
        )


def _check_parameterization(objective: Objective) -> None:
    """Checks that a checkpoint of this run can be opened again."""
    parameterization = objective.parameterization
    if parameterization is None:
        return
    cls = type(parameterization)
    try:
        registered = PARAMETERIZATIONS.get(cls.__name__)
        arguments = json.loads(json.dumps(parameterization.arguments))
        PARAMETERIZATIONS.build(cls.__name__, **arguments)
    except (ComponentError, TypeError, ValueError) as error:
        raise ConfigError(
            f"A checkpoint of this run could not be opened: {error} Register the class with "
            "@PARAMETERIZATIONS.register_module(), and give it plain arguments."
        ) from error
    if registered is not cls:
        raise ConfigError(
            f"The parameterization {cls.__name__} is not the registered one of this name: a "
            "checkpoint of this run would be opened with another class."
        )


def _check_draws(objective: Objective, dataset: Dataset, layout: BatchLayout) -> None:
    latents = torch.empty(2, *dataset.latent_shape)
    for component, arguments in ((dataset, 2), (objective, latents)):
        for player in objective.players:
            try:
                component.draw(arguments, _first_rows(player, 2, layout))  # type: ignore[arg-type]
            except TypeError as error:
                raise ConfigError(
                    f"{type(component).__name__}.draw must take its random numbers from "
                    f"afmlib.ops.drawing, not from torch: {str(error).splitlines()[0]}"
                ) from error
            except ValueError as error:  # An augmentation of images on data of points, for example.
                raise ConfigError(f"The objective does not fit the data: {error}") from error


def _first_rows(player: str, count: int, layout: BatchLayout) -> RowStreams:
    return RowStreams((0, 0, 0), 0, range(count), max(layout.global_batch, count), player)
