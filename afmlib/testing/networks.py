"""Checks of networks: generators, depth wrappers, discriminators, classifiers."""

__all__ = [
    "check_classifier",
    "check_depth_wrapper",
    "check_discriminator",
    "check_generator",
    "check_repeatable_generator",
]

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from afmlib.interfaces import (
    Classifier,
    DepthWrapper,
    Discriminator,
    Generator,
    RepeatableGenerator,
)
from afmlib.testing.contract import (
    Batch,
    independent_copy,
    known_shape,
    perturb,
    promise,
    require,
    require_close,
    require_instance,
    trial_batch,
)
from afmlib.testing.network_laws import check_missing_time, check_network, check_time


def check_generator(
    generator: Generator,
    latent_shape: Sequence[int] | None = None,
    num_classes: int | None = None,
) -> None:
    """Checks a generator.

    It returns latents of the given shape and dtype and accepts both times. It depends on a time
    exactly if it claims to. Samples are independent, all parameters are trained, float64 works,
    evaluation mode is deterministic, and the state dict restores it.

    Args:
        generator: The generator, which is not changed.
        latent_shape: The shape of one sample, if the generator does not declare it.
        num_classes: The number of classes, if the generator does not declare it.

    Raises:
        AssertionError: Names the class and the part of its contract that it breaks.
        ValueError: If the shape of a sample is unknown.
    """
    require_instance(generator, Generator)
    shape = known_shape(generator, generator.latent_shape, latent_shape)
    classes = generator.num_classes or num_classes or 10
    batch = trial_batch(generator, shape, classes + (generator.class_dropout_prob > 0))
    returns = "a generator returns latents of the given shape"
    check_network(generator, _generate, batch, tuple(batch.latents.shape), returns)
    latents, labels, sources, targets = vars(batch).values()
    for times in ((), (sources,), (None, targets)):
        check_missing_time(generator, (latents, labels, *times), latents.shape)
    moved = replace(batch, timesteps_src=sources.flip(0))
    if generator.embeds_time_difference:  # Which stays as it is.
        moved = replace(moved, timesteps_tgt=targets + sources.flip(0) - sources)
    check_time(generator, generator.embeds_timestep_src, _generate, batch, moved, "timesteps_src")
    moved = replace(batch, timesteps_tgt=targets.flip(0))
    check_time(generator, generator.embeds_timestep_tgt, _generate, batch, moved, "timesteps_tgt")


def check_repeatable_generator(
    generator: RepeatableGenerator,
    latent_shape: Sequence[int] | None = None,
    num_classes: int | None = None,
) -> None:
    """Checks a generator whose blocks can be repeated.

    It passes `check_generator`. Blocks keep the shape of the tokens, and a time embedding can
    be added to the condition. Without embedders, the generator equals its parts in turn.

    Args:
        generator: The generator, which is not changed.
        latent_shape: The shape of one sample, if the generator does not declare it.
        num_classes: The number of classes, if the generator does not declare it.

    Raises:
        AssertionError: Names the class and the part of its contract that it breaks.
        ValueError: If the shape of a sample is unknown.
    """
    require_instance(generator, RepeatableGenerator)
    check_generator(generator, latent_shape, num_classes)
    twin = independent_copy(generator).eval()
    perturb(twin)
    shape = known_shape(generator, generator.latent_shape, latent_shape)
    batch = trial_batch(generator, shape, generator.num_classes or num_classes or 10)
    require(twin.num_blocks >= 1, twin, "num_blocks is the number of blocks, at least 1")
    with promise(twin, "embed, run_block and head are the parts of the generator"):
        tokens, condition = twin.embed(batch.latents, batch.labels)
        embeds_time = _check_embed_time(twin, condition)
        for index in range(twin.num_blocks):
            before, tokens = tokens.shape, twin.run_block(index, tokens, condition)
            require(tokens.shape == before, twin, "a block keeps the shape of the tokens")
        made = twin.head(tokens, condition)
    require(made.shape == batch.latents.shape, twin, "head turns the tokens into latents")
    if not (embeds_time or generator.embeds_timestep_tgt):
        contract = "without time embedders, forward is embed, the blocks in turn, and head"
        require_close(made, _generate(twin, batch), twin, contract, 1e-5)


def _declared(generator: Generator) -> tuple[Any, ...]:
    return generator.latent_shape, generator.num_classes, generator.class_dropout_prob


def _check_embed_time(generator: RepeatableGenerator, condition: Tensor) -> bool:
    """Returns whether there is an embedder."""
    times = condition.new_tensor([1.0, 0.5, 0.5, 0.0])
    try:
        single, several = generator.embed_time(0.5), generator.embed_time(times)
    except ValueError:
        return False
    contract = "embed_time returns one row per time, to be added to the condition"
    for embedded, count in ((single, 1), (several, len(times))):
        kept = embedded.shape == (count, *condition.shape[1:])
        require(kept, generator, contract, f"for {count} it returned {tuple(embedded.shape)}")
    contract = "embed_time of a number equals that of an entry of a tensor"
    require_close(several[1:3], single.expand_as(several[1:3]), generator, contract, 1e-5)
    return True


def check_depth_wrapper(
    wrapper: DepthWrapper,
    latent_shape: Sequence[int] | None = None,
    num_classes: int | None = None,
) -> None:
    """Checks a wrapper that repeats the blocks of a generator.

    It passes `check_generator`. Each block runs ``repeats`` times, and the times are ignored, since
    it is a one-step model.

    Args:
        wrapper: The wrapper, which is not changed.
        latent_shape: The shape of one sample, if the generator does not declare it.
        num_classes: The number of classes, if the generator does not declare it.

    Raises:
        AssertionError: Names the class and the part of its contract that it breaks.
        ValueError: If the shape of a sample is unknown.
    """
    require_instance(wrapper, DepthWrapper)
    check_generator(wrapper, latent_shape, num_classes)
    kept = _declared(wrapper) == _declared(wrapper.generator)
    require(kept, wrapper, "shape, classes and class dropout are those of the generator")
    twin = independent_copy(wrapper).eval()
    perturb(twin)
    shape = known_shape(wrapper, wrapper.latent_shape, latent_shape)
    batch = trial_batch(wrapper, shape, wrapper.num_classes or num_classes or 10)
    embeds = wrapper.embeds_timestep_src or wrapper.embeds_timestep_tgt
    require(
        not embeds, wrapper, "a depth wrapper is a one-step model, and is not conditioned on times"
    )
    expected = dict.fromkeys(range(twin.generator.num_blocks), wrapper.repeats)
    runs = _count_runs(twin, batch)
    contract = f"each block runs {wrapper.repeats} times"
    require(runs == expected, wrapper, contract, f"the runs of each are {runs}")


def _count_runs(wrapper: DepthWrapper, batch: Batch) -> dict[int, int]:
    """Returns how often each block of the wrapped generator runs."""
    runs: Counter[int] = Counter()
    run_block = wrapper.generator.run_block

    def counted(index: int, tokens: Tensor, condition: Tensor) -> Tensor:
        runs[index] += 1
        return run_block(index, tokens, condition)

    wrapper.generator.run_block = counted  # type: ignore[method-assign]
    wrapper(batch.latents, batch.labels)
    return dict(sorted(runs.items()))


def check_discriminator(
    discriminator: Discriminator, latent_shape: Sequence[int], num_classes: int = 1
) -> None:
    """Checks a discriminator.

    It returns one logit per sample and accepts a time. It depends on the time exactly if it claims
    to. Samples are independent (no batch normalization), gradients reach the latents and all
    parameters, float64 works, evaluation mode is deterministic, and the state dict restores it.

    Args:
        discriminator: The discriminator, which is not changed.
        latent_shape: The shape of one sample.
        num_classes: The number of its classes.

    Raises:
        AssertionError: Names the class and the part of its contract that it breaks.
    """
    require_instance(discriminator, Discriminator)
    batch = trial_batch(discriminator, latent_shape, num_classes)
    size = (len(batch.labels),)
    returns = "a discriminator returns one logit per sample"
    check_network(discriminator, _discriminate, batch, size, returns)
    check_missing_time(discriminator, (batch.latents, batch.labels), size)
    moved = replace(batch, timesteps_tgt=batch.timesteps_tgt.flip(0))
    check_time(
        discriminator, discriminator.embeds_timestep, _discriminate, batch, moved, "timesteps"
    )


def check_classifier(classifier: Classifier, latent_shape: Sequence[int], num_classes: int) -> None:
    """Checks a classifier of noisy latents.

    It returns one logit per sample and class. Samples are independent, gradients reach the latents
    and all parameters, float64 works, evaluation mode is deterministic, and the state dict restores
    it.

    Args:
        classifier: The classifier, which is not changed.
        latent_shape: The shape of one sample.
        num_classes: The number of its classes.

    Raises:
        AssertionError: Names the class and the part of its contract that it breaks.
    """
    require_instance(classifier, Classifier)
    batch = trial_batch(classifier, latent_shape, num_classes)
    shape = (len(batch.labels), num_classes)
    returns = "a classifier returns one logit per sample and class"
    check_network(classifier, _classify, batch, shape, returns)


def _generate(network: Any, batch: Batch) -> Tensor:
    """Returns the latents, summed over the heads so that gradients reach all of them."""
    given: dict[str, Any] = {}
    if network.num_conditions:
        columns = range(1, network.num_conditions + 1)
        given["conditions"] = torch.stack([batch.timesteps_src / column for column in columns], 1)
    if not network.has_velocity_head:
        return network(*vars(batch).values(), **given)
    mean, velocity = network(*vars(batch).values(), velocity=True, **given)
    return mean + velocity


def _discriminate(network: Any, batch: Batch) -> Tensor:
    return network(batch.latents, batch.labels, batch.timesteps_tgt)


def _classify(network: Any, batch: Batch) -> Tensor:
    return network(batch.latents, batch.timesteps_tgt)
