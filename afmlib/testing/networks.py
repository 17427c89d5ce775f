"""Checks of networks: generators, depth wrappers, discriminators, classifiers."""

__all__ = [
    "check_classifier",
    "check_depth_wrapper",
    "check_discriminator",
    "check_generator",
    "check_repeatable_generator",
]

import copy
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

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

Call: TypeAlias = Callable[[Any, Batch], Tensor]
"""How a network is called on a batch."""


# --- One check per interface ----------------------------------------------------------------------


def check_generator(
    generator: Generator,
    latent_shape: Sequence[int] | None = None,
    num_classes: int | None = None,
) -> None:
    """Checks a generator.

    It returns latents of the shape and dtype that it is given, accepts both times, treats each
    sample by itself, trains all of its parameters, works in float64, repeats itself in evaluation
    mode, and is restored by its state dict.

    Args:
        generator: The generator; it is left as it is.
        latent_shape: The shape of one sample, where the generator does not declare it.
        num_classes: The number of classes, where the generator does not declare it.

    Raises:
        AssertionError: Names the class and the part of its contract that it breaks.
        ValueError: If the shape of a sample is unknown.
    """
    require_instance(generator, Generator)
    shape = known_shape(generator, generator.latent_shape, latent_shape)
    classes = generator.num_classes or num_classes or 10
    batch = trial_batch(generator, shape, classes + (generator.class_dropout_prob > 0))
    returns = "a generator returns latents of the shape that it is given"
    _check_network(generator, _generate, batch, tuple(batch.latents.shape), returns)
    for src, tgt in ((None, None), (batch.timesteps_src, None), (None, batch.timesteps_tgt)):
        _check_missing_time(
            generator, lambda: generator(batch.latents, batch.labels, src, tgt), batch.latents.shape
        )


def check_repeatable_generator(
    generator: RepeatableGenerator,
    latent_shape: Sequence[int] | None = None,
    num_classes: int | None = None,
) -> None:
    """Checks a generator whose blocks can be repeated.

    Besides what `check_generator` says, blocks keep the shape of the tokens, the embedding of a
    time can be added to the condition, and without embedders the generator is the parts in turn.

    Args:
        generator: The generator; it is left as it is.
        latent_shape: The shape of one sample, where the generator does not declare it.
        num_classes: The number of classes, where the generator does not declare it.

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
    if not embeds_time:
        contract = "without time embedders, forward is embed, the blocks in turn, and head"
        require_close(made, _generate(twin, batch), twin, contract, 1e-5)


def _check_embed_time(generator: RepeatableGenerator, condition: Tensor) -> bool:
    """Returns whether there is an embedder."""
    times = condition.new_tensor([1.0, 0.5, 0.5, 0.0])
    try:
        single, several = generator.embed_time(0.5), generator.embed_time(times)
    except ValueError:
        return False
    added = "what embed_time returns is added to the condition"
    for embedded in (single, several):
        require((condition + embedded).shape == condition.shape, generator, added)
    contract = "embed_time treats a number as it treats each entry of a tensor"
    require_close(several[1:3], single.expand_as(several[1:3]), generator, contract, 1e-5)
    return True


def check_depth_wrapper(
    wrapper: DepthWrapper,
    latent_shape: Sequence[int] | None = None,
    num_classes: int | None = None,
) -> None:
    """Checks a wrapper that repeats the blocks of a generator.

    Besides what `check_generator` says, each block runs ``repeats`` times, and the times make no
    difference, since it is a one-step model.

    Args:
        wrapper: The wrapper; it is left as it is.
        latent_shape: The shape of one sample, where the generator does not declare it.
        num_classes: The number of classes, where the generator does not declare it.

    Raises:
        AssertionError: Names the class and the part of its contract that it breaks.
        ValueError: If the shape of a sample is unknown.
    """
    require_instance(wrapper, DepthWrapper)
    check_generator(wrapper, latent_shape, num_classes)
    for name in ("latent_shape", "num_classes", "class_dropout_prob"):
        kept = getattr(wrapper, name) == getattr(wrapper.generator, name)
        require(kept, wrapper, f"{name} is that of the generator")
    twin = independent_copy(wrapper).eval()
    perturb(twin)
    shape = known_shape(wrapper, wrapper.latent_shape, latent_shape)
    batch = trial_batch(wrapper, shape, wrapper.num_classes or num_classes or 10)
    plain = twin(batch.latents, batch.labels)
    contract = "a deep generator is a one-step model, and ignores the times"
    require_close(_generate(twin, batch), plain, twin, contract)
    runs: Counter[int] = Counter()
    inner, run_block = twin.generator, twin.generator.run_block

    def counted(index: int, tokens: Tensor, condition: Tensor) -> Tensor:
        runs[index] += 1
        return run_block(index, tokens, condition)

    inner.run_block = counted  # type: ignore[method-assign]
    twin(batch.latents, batch.labels)
    expected = dict.fromkeys(range(inner.num_blocks), wrapper.repeats)
    require(
        dict(runs) == expected,
        wrapper,
        f"each block runs {wrapper.repeats} times",
        f"the runs are {dict(runs)}",
    )


def check_discriminator(
    discriminator: Discriminator, latent_shape: Sequence[int], num_classes: int = 1
) -> None:
    """Checks a discriminator.

    It returns one logit per sample, accepts a time, scores each sample by itself (no batch
    normalisation), has a slope with respect to the latents, trains all of its parameters, works in
    float64, repeats itself in evaluation mode, and is restored by its state dict.

    Args:
        discriminator: The discriminator; it is left as it is.
        latent_shape: The shape of one sample.
        num_classes: The number of classes that it was built for.

    Raises:
        AssertionError: Names the class and the part of its contract that it breaks.
    """
    require_instance(discriminator, Discriminator)
    batch = trial_batch(discriminator, latent_shape, num_classes)
    size = (len(batch.labels),)
    returns = "a discriminator returns one logit per sample"
    _check_network(discriminator, _discriminate, batch, size, returns)
    _check_missing_time(discriminator, lambda: discriminator(batch.latents, batch.labels), size)


def check_classifier(classifier: Classifier, latent_shape: Sequence[int], num_classes: int) -> None:
    """Checks a classifier of noised latents.

    It returns one logit per sample and class, treats each sample by itself, has a slope with
    respect to the latents, trains all of its parameters, works in float64, repeats itself in
    evaluation mode, and is restored by its state dict.

    Args:
        classifier: The classifier; it is left as it is.
        latent_shape: The shape of one sample.
        num_classes: The number of classes that it was built for.

    Raises:
        AssertionError: Names the class and the part of its contract that it breaks.
    """
    require_instance(classifier, Classifier)
    batch = trial_batch(classifier, latent_shape, num_classes)
    shape = (len(batch.labels), num_classes)
    returns = "a classifier returns one logit per sample and class"
    _check_network(classifier, _classify, batch, shape, returns)


# --- What they have in common ---------------------------------------------------------------------


def _generate(network: Any, batch: Batch) -> Tensor:
    return network(batch.latents, batch.labels, batch.timesteps_src, batch.timesteps_tgt)


def _discriminate(network: Any, batch: Batch) -> Tensor:
    return network(batch.latents, batch.labels, batch.timesteps_tgt)


def _classify(network: Any, batch: Batch) -> Tensor:
    return network(batch.latents, batch.timesteps_tgt)


def _check_network(
    network: nn.Module, call: Call, batch: Batch, shape: tuple[int, ...], returns: str
) -> None:
    twin = independent_copy(network).train()
    perturb(twin)
    _check_output(twin, call, batch, shape, returns)
    _check_gradients(twin, call, batch)
    _check_state(twin.eval(), call, batch)
    contract = "a network works in float64"
    with promise(network, contract):
        twin = twin.double()
        wide = call(twin, batch.double())
    require(wide.dtype == torch.float64, network, contract, f"it returned {wide.dtype}")
    _check_independence(twin, call, batch.double())


def _check_output(
    network: nn.Module, call: Call, batch: Batch, shape: tuple[int, ...], returns: str
) -> None:
    given = copy.deepcopy(batch)
    with promise(network, returns):
        made = call(network, batch)
    require(
        isinstance(made, Tensor) and tuple(made.shape) == shape,
        network,
        returns,
        f"for a batch of shape {tuple(batch.latents.shape)} "
        f"it returned {tuple(made.shape) if isinstance(made, Tensor) else type(made).__name__}",
    )
    dtype = batch.latents.dtype
    contract = "what a network returns has the dtype of the latents"
    require(made.dtype == dtype, network, contract, f"it is {made.dtype} for {dtype}")
    require(bool(made.isfinite().all()), network, "what a network returns is finite")
    for name, before in vars(given).items():
        kept = torch.equal(before, vars(batch)[name])
        require(kept, network, f"a network leaves its {name} as they are")


def _check_missing_time(
    network: nn.Module, call: Callable[[], Tensor], shape: Sequence[int]
) -> None:
    contract = "a time that is missing is ignored, or refused by a ValueError if it is embedded"
    with promise(network, contract):
        try:
            made = call()
        except ValueError:
            return
        require(tuple(made.shape) == tuple(shape), network, contract)


def _check_gradients(network: nn.Module, call: Call, batch: Batch) -> None:
    latents = batch.latents.clone().requires_grad_()
    with promise(network, "a network can be differentiated"):
        made = call(network, Batch(latents, *list(vars(batch).values())[1:]))
        weights = torch.linspace(0.5, 1.5, made.numel()).reshape(made.shape).to(made)
        (made * weights).sum().backward()
    slope = latents.grad
    contract = "what a network returns depends on the latents, differentiably"
    require(slope is not None and bool(slope.isfinite().all() and slope.any()), network, contract)
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            reached = parameter.grad is not None and bool(parameter.grad.isfinite().all())
            contract = "gradients reach every trainable parameter, and are finite"
            require(reached, network, contract, f"that of {name} is missing or not finite")
    network.zero_grad(set_to_none=True)


def _check_state(network: nn.Module, call: Call, batch: Batch) -> None:
    contract = "in evaluation mode, a network returns the same for the same input"
    made = call(network, batch)
    require(torch.equal(made, call(network, batch)), network, contract)
    state = network.state_dict()
    contract = "no two entries of the state dict are one tensor, which safetensors would refuse"
    owners = Counter(
        tensor.untyped_storage().data_ptr() for tensor in state.values() if tensor.numel()
    )
    require(all(count == 1 for count in owners.values()), network, contract)
    contract = "the state dict holds all that the output depends on"
    other = copy.deepcopy(network)
    perturb(other, seed=1)
    with promise(network, contract):
        other.load_state_dict(state, strict=True)
    require(torch.equal(made, call(other, batch)), network, contract)


def _check_independence(network: nn.Module, call: Call, batch: Batch) -> None:
    contract = "each sample is treated independently of the others of its batch"
    made = call(network.eval(), batch)
    parts = [call(network, batch[index : index + 1]) for index in range(len(batch.labels))]
    require_close(torch.cat(parts), made, network, contract)
    # Normalisation over the batch shows in training mode only.
    swapped = Batch(*(torch.cat([x[:1], x[1:].flip(0)]) for x in vars(batch).values()))
    swapped.latents[1:] *= 2
    firsts = [_train_mode(network, call, inputs)[:1] for inputs in (batch, swapped)]
    require_close(*firsts, network, f"{contract}, in training mode too")


def _train_mode(network: nn.Module, call: Call, batch: Batch) -> Tensor:
    """Calls a fresh copy with fixed dropout."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return call(copy.deepcopy(network).train(), batch)
