"""The check of objectives: what is trained, and by which of its terms."""

__all__ = ["check_objective"]

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from afmlib.interfaces import Generator, Minibatch, Objective, SampleModel
from afmlib.ops.draws import take_rows
from afmlib.testing.contract import (
    Batch,
    independent_copy,
    known_shape,
    no_global_draws,
    perturb,
    promise,
    require,
    require_instance,
    stream,
    trial_batch,
)
from afmlib.typing import Scalar

BATCH_SIZE = 8
TOTAL_IMAGES = 1000


def check_objective(
    objective: Objective,
    latent_shape: Sequence[int] | None = None,
    num_classes: int | None = None,
) -> None:
    """Checks an objective.

    All that is random is in its draws, which repeat with their generator; its terms are finite
    scalars and functions of their arguments; each player has terms, whose gradient reaches that
    player and nobody else; two halves of a batch give together the gradient of the whole; the
    running average is frozen, and is what is sampled.

    Args:
        objective: The objective; it is left as it is.
        latent_shape: The shape of one sample, where the generator does not declare it.
        num_classes: The number of classes, where the generator does not declare it.

    Raises:
        AssertionError: Names the class and the part of its contract that it breaks.
        ValueError: If the shape of a sample is unknown.
    """
    require_instance(objective, Objective)
    twin = independent_copy(objective).train()
    perturb(twin)
    if twin.total_images is None:
        twin.total_images = TOTAL_IMAGES
    generator = dict(twin.named_children()).get("generator")
    if isinstance(generator, Generator):
        latent_shape = known_shape(objective, generator.latent_shape, latent_shape)
        num_classes = generator.num_classes or num_classes
    shape, classes = known_shape(objective, None, latent_shape), num_classes or 10
    batch = trial_batch(twin, shape, classes, size=BATCH_SIZE)
    _check_players(twin)
    draws = _check_draws(twin, batch)
    _check_unknown_player(twin, batch, draws)
    for player in twin.players:
        _check_terms(twin, player, batch, draws)
        _check_gradients(twin, player, batch, draws)
        _check_parts(twin, player, batch)
    _check_average(twin)
    model = twin.sample_model
    if model is not None:
        _check_sample_model(twin, model, batch)


def _check_players(objective: Objective) -> None:
    contract = "players are the submodules that are trained, with their updates per iteration"
    networks = dict(objective.named_children())
    require(bool(objective.players), objective, contract, "there are none")
    for player, updates in objective.players.items():
        seen = f"{player!r} is not one of {', '.join(networks)}"
        require(player in networks, objective, contract, seen)
        require(isinstance(updates, int) and updates >= 1, objective, contract, f"{updates!r}")


def _check_draws(objective: Objective, batch: Batch) -> Any:
    contract = "draw returns a flat dataclass of tensors"
    with promise(objective, contract):
        with no_global_draws(objective, "draw uses the generator that it is given"):
            draws = objective.draw(batch.latents, stream(0))
        objective.draw(batch.latents)
    require(dataclasses.is_dataclass(draws), objective, contract, f"it is {type(draws).__name__}")
    again = vars(objective.draw(batch.latents, stream(0)))
    other = vars(objective.draw(batch.latents, stream(1)))
    differs = False
    for name, value in vars(draws).items():
        seen = f"{name} is {type(value).__name__}"
        require(value is None or isinstance(value, Tensor), objective, contract, seen)
        if value is None:
            continue
        rows = "every draw has at most one row per sample"
        kept = value.ndim >= 1 and len(value) <= len(batch.labels)
        require(kept, objective, rows, f"{name} has shape {tuple(value.shape)}")
        repeats = "the same generator draws the same"
        require(torch.equal(value, again[name]), objective, repeats, f"{name} differs")
        differs |= not torch.equal(value, other[name])
    require(differs, objective, "draw uses the generator that it is given")
    return draws


def _check_unknown_player(objective: Objective, batch: Batch, draws: Any) -> None:
    contract = "a player that there is not is refused by a ValueError"
    with promise(objective, contract):
        try:
            objective.terms("nobody", batch.latents, batch.labels, draws)
        except ValueError:
            return
    require(False, objective, contract, "it is accepted")


def _terms(objective: Objective, player: str, batch: Batch, draws: Any) -> dict[str, Scalar]:
    """Returns the terms of a player, once nothing random and no other side effect is in them."""
    contract = f"the terms of {player!r} are a function of the batch and the draws"
    with promise(objective, contract), no_global_draws(objective, contract):
        return objective.terms(player, batch.latents, batch.labels, draws)


def _check_terms(objective: Objective, player: str, batch: Batch, draws: Any) -> None:
    trainable = [weight.requires_grad for weight in objective.parameters()]
    for num_images in (0, TOTAL_IMAGES // 2, 2 * TOTAL_IMAGES):
        objective.num_images = num_images
        terms = _terms(objective, player, batch, draws)
        contract = f"the terms of {player!r} are finite scalars, at least one"
        require(isinstance(terms, dict) and bool(terms), objective, contract, f"{terms!r}")
        for name, term in terms.items():
            kept = isinstance(term, Tensor) and term.ndim == 0 and bool(term.isfinite())
            require(kept, objective, contract, f"{name} is {term!r}")
        again = _terms(objective, player, batch, draws)
        kept = all(torch.equal(term, again[name]) for name, term in terms.items())
        require(kept, objective, f"the terms of {player!r} repeat to the last bit")
    contract = "terms leaves every parameter as trainable as it was"
    kept = trainable == [weight.requires_grad for weight in objective.parameters()]
    require(kept, objective, contract)


def _check_gradients(objective: Objective, player: str, batch: Batch, draws: Any) -> None:
    contract = f"the gradient of the terms of {player!r} reaches that player, and nobody else"
    twin = copy.deepcopy(objective)  # A backward pass may move running averages.
    with promise(objective, contract):
        terms = _terms(twin, player, batch, draws)
        torch.autograd.backward(torch.stack(list(terms.values())).sum())
    own = False
    for name, parameter in twin.named_parameters():
        if parameter.grad is None or not parameter.grad.any():
            continue
        require(name.startswith(f"{player}."), objective, contract, f"it reached {name}")
        finite = bool(parameter.grad.isfinite().all())
        require(finite, objective, f"{contract}, and is finite", f"that of {name} is not")
        own = True
    require(own, objective, contract, "it reached nothing")


def _check_parts(objective: Objective, player: str, batch: Batch) -> None:
    """Compares the gradient of a batch with that of its halves, in float64, without dropout."""
    contract = f"two halves of a batch give the {player!r} the gradient of the whole"
    precise = copy.deepcopy(objective).double().eval()
    latents = batch.latents.double()
    draws = precise.draw(latents, stream(0))
    gradients = []
    for count in (1, 2):
        with promise(objective, "every row of the draws belongs to one sample"):
            parts = [
                Minibatch(latents[part::count], batch.labels[part::count], some, network_seed=0)
                for part, some in ((part, take_rows(draws, part, count)) for part in range(count))
            ]
        gradients.append(_gradient_of_parts(precise, player, parts, contract))
    whole, halves = gradients
    difference = torch.linalg.vector_norm(whole - halves)
    kept = bool(difference <= 1e-8 * torch.linalg.vector_norm(whole))
    require(kept, objective, contract, f"they differ by {difference.item():.1e}")


def _gradient_of_parts(
    objective: Objective, player: str, parts: Sequence[Minibatch], contract: str
) -> Tensor:
    twin = copy.deepcopy(objective)  # A backward pass may move running averages.
    with promise(objective, contract), torch.random.fork_rng(devices=[]):
        for compute in twin.terms_of_parts(player, parts):
            torch.autograd.backward(torch.stack(list(compute().values())).sum() / len(parts))
    gradients = [p.grad.flatten() for p in twin.parameters() if p.grad is not None]
    return torch.cat(gradients)


def _check_average(objective: Objective) -> None:
    player, name = objective.averaged_player, objective.average_name
    contract = "averaged_player is a player, of whose network <player>_ema is the running average"
    with promise(objective, contract):
        online, average = objective.get_submodule(player), objective.average
    require(player in objective.players, objective, contract, f"it is {player!r}")
    frozen = not any(parameter.requires_grad for parameter in average.parameters())
    require(frozen, objective, f"{name} is frozen")
    shapes = [{k: v.shape for k, v in net.state_dict().items()} for net in (online, average)]
    require(shapes[0] == shapes[1], objective, f"{name} has the tensors of the {player}")
    storages = [
        {weight.untyped_storage().data_ptr() for weight in net.parameters()}
        for net in (online, average)
    ]
    shared = storages[0] & storages[1]
    require(not shared, objective, f"{name} shares no tensors with the {player}")


def _check_sample_model(objective: Objective, model: SampleModel, batch: Batch) -> None:
    contract = "sample_model carries noises to samples of the same shape"
    with promise(objective, contract), torch.no_grad():
        samples = model(batch.latents, batch.labels)
    kept = samples.shape == batch.latents.shape and bool(samples.isfinite().all())
    require(kept, objective, contract, f"it returned {tuple(samples.shape)}")
    averaged = model.generator is objective.average
    require(averaged, objective, f"sample_model holds {objective.average_name}")
    conventions = model.conventions
    name = type(objective).__name__
    contract = "the conventions of sample_model name the objective"
    require(conventions.objective == name, objective, contract, f"{conventions.objective!r}")
    contract = "the conventions of sample_model say how many evaluations a sample takes"
    require(conventions.nfe >= 1, objective, contract, f"{conventions.nfe!r}")
