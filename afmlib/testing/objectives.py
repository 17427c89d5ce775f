"""The conformance check of objectives."""

__all__ = ["check_objective"]

import copy
import dataclasses
import functools
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from afmlib import processes
from afmlib.config import EMAConfig, OptimizerConfig
from afmlib.engine.batches import MicroBatch
from afmlib.engine.optimizers import build_optimizers
from afmlib.engine.step import TrainingMetrics, TrainingStep
from afmlib.interfaces import Generator, Objective, SampleModel
from afmlib.ops.drawing import RowStreams
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

BATCH_SIZE = 16
TOTAL_IMAGES = 1000
TOLERANCE = 1e-12
"""Relative difference of gradients in float64 that counts as equal."""


def check_objective(
    objective: Objective,
    latent_shape: Sequence[int] | None = None,
    num_classes: int | None = None,
) -> None:
    """Checks an objective.

    All randomness is in its draws, which repeat with their generator. The draws of a row do not
    depend on the other rows. Its terms are finite scalars and functions of their arguments. The
    gradient of a player's terms reaches only that player. One micro-batch, several micro-batches
    and several processes give the same gradients and the same terms, also for a subclass that adds
    a term. The EMA is frozen, and it is what is sampled.

    Args:
        objective: The objective. It is not changed.
        latent_shape: The shape of one sample, if the generator does not declare it.
        num_classes: The number of classes, if the generator does not declare it.

    Raises:
        AssertionError: Names the class and the broken part of its contract.
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
    for player in twin.players:
        _check_rows(twin, player, batch)
        _check_terms(twin, player, batch, draws)
        _check_gradients(twin, player, batch, draws)
        with torch.random.fork_rng(devices=[]):  # The step seeds the networks.
            _check_division(twin, player, batch)
    _check_ema(twin)
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


def _check_rows(objective: Objective, player: str, batch: Batch) -> None:
    """Compares the draws of a batch with those of its parts, bit for bit."""
    contract = "draw takes its numbers from the functions of afmlib.ops.drawing"
    with promise(objective, contract):
        whole = vars(_draw_rows(objective, player, batch, 0, 1))
    for count in (2, 4, 8):
        for index in range(count):
            part = vars(_draw_rows(objective, player, batch, index, count))
            for name, value in whole.items():
                if not isinstance(value, Tensor):
                    continue
                contract = "the draws of a row do not depend on the other rows"
                rows, found = value[index::count], part[name]
                if value.dtype == torch.int64:  # Numbers of rows, counted within the part.
                    rows = (value[value % count == index] - index) // count
                seen = f"{name} differs in part {index} of {count}"
                # A part without a row of its own may have one, so that it runs as the others do.
                kept = found is not None and len(found) in (len(rows), max(len(rows), 1))
                kept = kept and torch.equal(found[: len(rows)], rows)
                require(kept, objective, contract, seen)


def _draw_rows(objective: Objective, player: str, batch: Batch, index: int, count: int) -> Any:
    """Draws for one of several micro-batches, as the training loop does."""
    rows, images = range(index, BATCH_SIZE, count), 3 * BATCH_SIZE
    source = RowStreams((0, 0, 0), images, rows, BATCH_SIZE, player)
    return objective.draw(batch.latents[index::count], source)


def _terms(objective: Objective, player: str, batch: Batch, draws: Any) -> Mapping[str, Scalar]:
    """Returns the terms of a player, which draw no random numbers."""
    contract = f"the terms of {player!r} are a function of the batch and the draws"
    with promise(objective, contract), no_global_draws(objective, contract):
        return objective.terms(player, batch.latents, batch.labels, draws)


def _check_terms(objective: Objective, player: str, batch: Batch, draws: Any) -> None:
    trainable = [weight.requires_grad for weight in objective.parameters()]
    for num_images in (0, TOTAL_IMAGES // 2, 2 * TOTAL_IMAGES):
        objective.num_images = num_images
        terms = _terms(objective, player, batch, draws)
        contract = f"the terms of {player!r} are finite scalars, at least one"
        require(isinstance(terms, Mapping) and bool(terms), objective, contract, f"{terms!r}")
        for name, term in terms.items():
            kept = isinstance(term, Tensor) and term.ndim == 0 and bool(term.isfinite())
            require(kept, objective, contract, f"{name} is {term!r}")
        again = _terms(objective, player, batch, draws)
        kept = all(torch.equal(term, again[name]) for name, term in terms.items())
        require(kept, objective, f"the terms of {player!r} repeat bit for bit")
    contract = "terms leaves every parameter as trainable as it was"
    kept = trainable == [weight.requires_grad for weight in objective.parameters()]
    require(kept, objective, contract)


def _check_gradients(objective: Objective, player: str, batch: Batch, draws: Any) -> None:
    contract = f"the gradient of the terms of {player!r} reaches only that player"
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


def _check_division(objective: Objective, player: str, batch: Batch) -> None:
    """Compares the gradient of a batch with those of its parts, in float64, without dropout.

    A subclass with one more term is compared as well: none of its terms may be lost.
    """
    precise = copy.deepcopy(objective).double().eval()
    batch = dataclasses.replace(batch, latents=batch.latents.double())

    def part(index: int, count: int) -> MicroBatch:
        draws = _draw_rows(precise, player, batch, index, count)
        latents, labels = batch.latents[index::count], batch.labels[index::count]
        return MicroBatch(latents, labels, draws, network_seed=0)

    for subject in (precise, _with_extra_term(precise, player)):
        name = "" if subject is precise else ", in a subclass that adds a term"
        found = {}
        with promise(objective, f"the training step can train the {player!r}{name}"):
            names, whole = _accumulate(subject, player, [part(0, 1)])
            for count, number in ((2, "two"), (8, "eight")):
                if BATCH_SIZE // count % objective.group_size:
                    continue  # A group cannot be divided.
                parts = [part(index, count) for index in range(count)]
                found[f"{number} micro-batches"] = _accumulate(subject, player, parts)
                found[f"{number} processes"] = _in_processes(
                    [functools.partial(_accumulate, subject, player, [part]) for part in parts]
                )
        for division, (terms, gradient) in found.items():
            contract = f"{division} give the {player!r} the terms of the whole batch{name}"
            require(terms == names, objective, contract, f"{sorted(names ^ terms)} differ")
            difference = torch.linalg.vector_norm(whole - gradient)
            kept = bool(difference <= TOLERANCE * torch.linalg.vector_norm(whole))
            contract = f"{division} give the {player!r} the gradient of the whole batch{name}"
            require(kept, objective, contract, f"they differ by {difference.item():.1e}")


def _with_extra_term(objective: Objective, player: str) -> Objective:
    """Returns a copy with another term, a mean over the samples as every term is."""
    base: Any = type(objective)

    class Extended(base):
        def terms(self, name: str, latents: Tensor, labels: Tensor, draws: Any) -> Any:
            terms = super().terms(name, latents, labels, draws)
            weights = [p for p in self.get_submodule(player).parameters() if p.requires_grad]
            squares = torch.stack([weight.square().mean() for weight in weights])
            return {**terms, "extra": latents.flatten(1).square().mean(1).mean() * squares.sum()}

    extended = copy.deepcopy(objective)
    extended.__class__ = Extended
    return extended


def _accumulate(
    objective: Objective, player: str, micro_batches: Sequence[MicroBatch]
) -> tuple[set[str], Tensor]:
    """Returns the names of the terms, and the mean gradient."""
    twin = copy.deepcopy(objective)  # A backward pass may change statistics.
    optimizers = build_optimizers({name: OptimizerConfig(lr=1.0) for name in twin.players}, twin)
    step = TrainingStep(twin, {}, optimizers, EMAConfig())
    metrics = TrainingMetrics(player)
    step.accumulate(player, micro_batches, metrics)
    gradients = [p.grad.flatten() for p in twin.parameters() if p.grad is not None]
    return set(metrics.names), torch.cat(gradients)


def _in_processes(
    runs: Sequence[Callable[[], tuple[set[str], Tensor]]],
) -> tuple[set[str], Tensor]:
    """Runs processes as threads that share means and rows, and returns the mean gradient.

    One thread runs at a time, since forward-mode differentiation has a global state.
    """
    barrier, local = threading.Barrier(len(runs), timeout=60), threading.local()
    turn = threading.Lock()
    shared: list[Any] = [None] * len(runs)
    results: list[Any] = [None] * len(runs)

    def exchange(values: Tensor) -> list[Tensor]:
        shared[local.rank] = values.detach()
        turn.release()
        try:
            barrier.wait()
            gathered = list(shared)
            barrier.wait()  # Before anyone writes the next one.
        finally:
            turn.acquire()
        return gathered

    def mean(values: Tensor) -> Tensor:
        return torch.stack(exchange(values)).sum(0) / len(runs)

    def own_rank() -> int:
        return int(local.rank)

    def all_rows(rows: Tensor) -> Tensor:
        return torch.stack(exchange(rows), 1).flatten(0, 1)

    def run(rank: int) -> None:
        local.rank = rank
        with turn:
            try:
                results[rank] = runs[rank]()
            except BaseException as error:
                results[rank] = error
                barrier.abort()

    with (
        mock.patch.object(processes, "size", return_value=len(runs)),
        mock.patch.object(processes, "rank", own_rank),
        mock.patch.object(processes, "mean", mean),
        mock.patch.object(processes, "all_rows", all_rows),
    ):
        threads = [threading.Thread(target=run, args=[rank]) for rank in range(len(runs))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for result in results:
        if isinstance(result, BaseException) and not isinstance(
            result, threading.BrokenBarrierError
        ):
            raise result
    names = set().union(*(names for names, _ in results))
    return names, torch.stack([gradient for _, gradient in results]).mean(0)


def _check_ema(objective: Objective) -> None:
    player, name = objective.ema_player, objective.ema_name
    contract = "ema_player is a player, and <player>_ema the EMA of its network"
    with promise(objective, contract):
        online, average = objective.get_submodule(player), objective.ema
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
    averaged = model.generator is objective.ema
    require(averaged, objective, f"sample_model holds {objective.ema_name}")
    conventions = model.conventions
    name = type(objective).__name__
    contract = "the conventions of sample_model name the objective"
    require(conventions.objective == name, objective, contract, f"{conventions.objective!r}")
    contract = "the conventions of sample_model say how many evaluations a sample takes"
    require(conventions.nfe >= 1, objective, contract, f"{conventions.nfe!r}")
