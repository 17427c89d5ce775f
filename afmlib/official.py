r"""Models out of the files that the authors publish, ready to sample.

The network is recognized by its weights. What they cannot tell is in the name of the file or has to
be given: how often the blocks of a deep model are repeated, the number of network evaluations, and
with it what the output means.

============================  =====================  ==============================================
weights                       given by name or hand  model
============================  =====================  ==============================================
no time embedder                                     one step
``t_embedder``                ``nfe`` of 2 or more   that many steps, predicts "velocity"
``t_embedder``                ``repeats``            one step, deep: the blocks run so many times
``t_embedder`` and            ``prediction``         any number of steps
``t_tgt_embedder``
============================  =====================  ==============================================

References:
    | Adversarial Flow Models (Lin et al., 2025)
    | https://arxiv.org/abs/2511.22475
"""

__all__ = [
    "first_difference",
    "generator_spec",
    "latent_scale_of",
    "load_official",
    "public_state_dict",
]

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from afmlib.interfaces import Classifier, Conventions, Discriminator, Generator, SampleModel
from afmlib.io.checked_files import CheckpointError
from afmlib.io.official_files import read_published
from afmlib.io.official_layout import PublishedNetwork, recognize
from afmlib.io.official_names import PublishedName, parse_name, parse_nfe
from afmlib.io.size_limit import build_for
from afmlib.networks.dit import DiTGenerator
from afmlib.networks.repeat import RepeatDepth
from afmlib.nn.attention import Attention
from afmlib.parameterizations import parameterization_of
from afmlib.registry import build_classifier, build_discriminator, build_generator

LATENT_CHANNELS, LATENT_SCALE = 4, 0.18215
"""Of the autoencoder sd-vae-ft-mse, whose latents the published models are of."""

TIME_SCALE = 1000.0
"""The factor on times in the published networks."""

PREDICTIONS = {"x": "sample", "v": "velocity", "sample": "sample", "velocity": "velocity"}
"""The paper's names, and those here."""


def load_official(
    path: str,
    repeats: int | None = None,
    nfe: int | None = None,
    prediction: str | None = None,
    num_heads: int | None = None,
    device: torch.device | str = "cpu",
) -> SampleModel | Discriminator | Classifier:
    """Opens a published file: one of the thirteen generators, a discriminator or a classifier.

    Args:
        path: The file, ``.pth`` or ``.safetensors``: a path or a URL, of which a copy is kept in
            ``$AFMLIB_CACHE`` or ``~/.cache/afmlib``.
        repeats: How often the blocks of a deep model run; by the name of the file unless given.
        nfe: The number of network evaluations of a sample; by the name of the file unless given.
        prediction: "sample" or "velocity"; unless given, "velocity" with several evaluations and
            "sample" with one, as published.
        num_heads: The number of attention heads; that of the published network of this width
            unless given.
        device: Where to put it.

    Returns:
        A model for :func:`afmlib.sample` if the file is of a generator, else the network; frozen.

    Raises:
        CheckpointError: If the file is damaged or fits no published network.
        ValueError: If the file leaves open what a model is, or an argument contradicts it.
        OSError: If it cannot be read.
    """
    path = str(path)
    network = read_published(path, num_heads)
    if network.kind == "generator":
        choice = _choose(network, repeats, nfe, prediction)
        built: nn.Module = _sample_model(network, choice)
    else:
        _refuse_for(network, repeats=repeats, nfe=nfe, prediction=prediction)
        build = {"discriminator": build_discriminator, "classifier": build_classifier}
        built = _load(network, build[network.kind])
    built = built.to(device).requires_grad_(False).eval()
    assert isinstance(built, SampleModel | Discriminator | Classifier)
    return built


@dataclass(frozen=True)
class _Choice:
    """What weights do not tell of a generator."""

    repeats: int
    nfe: int
    prediction: str


def _choose(
    network: PublishedNetwork, repeats: int | None, nfe: int | None, prediction: str | None
) -> _Choice:
    """Settles it by arguments, else by the name of the file, else by what weights leave open."""
    for name, value in (("repeats", repeats), ("nfe", nfe)):
        if value is not None and (type(value) is not int or value < 1):
            raise ValueError(f"{name} must be at least 1, got {value!r}.")
    if prediction is not None and prediction not in PREDICTIONS:
        raise ValueError(f"prediction is 'sample' or 'velocity', got {prediction!r}.")
    both_given = repeats is not None and nfe is not None
    # A number above 1 says which kind of model it is: the name is not asked for the other.
    by_name = parse_name(network.path) if repeats is None and nfe in (None, 1) else PublishedName()
    if nfe is None and repeats in (None, 1):
        nfe = parse_nfe(network.path)
    repeats = repeats or by_name.repeats
    if network.arguments["use_timestep_tgt"]:
        return _choose_any_step(network, repeats, nfe, prediction)
    if not both_given:
        repeats, nfe = _choose_kind(network, repeats, nfe)
    repeats, nfe = _check_kind(network, repeats or 1, nfe or 1)
    return _Choice(repeats, nfe, PREDICTIONS[prediction or ("v" if nfe > 1 else "x")])


def _choose_kind(
    network: PublishedNetwork, repeats: int | None, nfe: int | None
) -> tuple[int | None, int | None]:
    """Refuses to guess what a source-time embedder is for."""
    path = network.path
    if network.arguments["use_timestep_src"] and (repeats or 1) == 1 and (nfe or 1) == 1:
        if nfe == 1 or repeats == 1:
            missing = "repeats" if nfe == 1 else "nfe"
            raise ValueError(
                f"{path} has a t_embedder, so it is no plain one-step model: give {missing}."
            )
        raise ValueError(
            f"{path} has a t_embedder, and its name does not say what for: give nfe (2 or 4) of a "
            "multi-step model, or repeats (2 or 4) of a deep one."
        )
    return repeats, nfe


def _check_kind(network: PublishedNetwork, repeats: int, nfe: int) -> tuple[int, int]:
    """Refuses what the weights, or the other number, rule out."""
    if repeats > 1 and nfe > 1:
        raise ValueError(
            f"Deep models make one step: {network.path} cannot have repeats {repeats} and nfe "
            f"{nfe}."
        )
    for name, value in (("repeats", repeats), ("nfe", nfe)):
        if value > 1 and not network.arguments["use_timestep_src"]:
            raise ValueError(
                f"{network.path} is of a plain one-step model, without t_embedder: {name} is 1, "
                f"not {value}."
            )
    return repeats, nfe


def _choose_any_step(
    network: PublishedNetwork, repeats: int | None, nfe: int | None, prediction: str | None
) -> _Choice:
    if prediction is None:
        raise ValueError(
            f"{network.path} is of an any-step model, of which none was published: give prediction."
        )
    if (repeats or 1) > 1:
        raise ValueError(f"{network.path} has a t_tgt_embedder, which no deep model has.")
    return _Choice(1, nfe or 1, PREDICTIONS[prediction])


def _refuse_for(network: PublishedNetwork, **arguments: object) -> None:
    for name, value in arguments.items():
        if value is not None:
            raise ValueError(
                f"{network.path} is of a {network.kind}, which has no {name}, got {value!r}."
            )


def _sample_model(network: PublishedNetwork, choice: _Choice) -> SampleModel:
    spec = dict(network.arguments)
    generator = _load(network, build_generator)
    if choice.repeats > 1:
        deep = dict(type="RepeatDepth", repeats=choice.repeats, generator=generator)
        generator = build_generator(deep)
    parameterization = parameterization_of(choice.prediction)
    conventions = Conventions(
        objective="AdversarialFlow",
        parameterization=type(parameterization).__name__,
        nfe=choice.nfe,
        any_nfe=spec["use_timestep_tgt"],
        num_classes=spec["num_classes"],
        latent_shape=(spec["in_channels"], spec["input_size"], spec["input_size"]),
        latent_scale=latent_scale_of(spec["in_channels"]),
    )
    return SampleModel(generator, parameterization, conventions)


def _load(network: PublishedNetwork, build: Callable[..., Any]) -> Any:
    """Builds a network without memory of its own, and gives it the weights, strictly."""
    spec = dict(type=network.type, **network.arguments)
    try:
        with torch.device("meta"):
            built: nn.Module = build_for(network.state, lambda: build(spec))
    except ValueError as error:
        raise CheckpointError(f"{network.path} fits no {network.type}: {error}") from error
    problem = first_difference(network.state, built.state_dict())
    if problem:
        raise CheckpointError(f"{network.path} does not fit a {network.type}: {problem}.")
    built.load_state_dict(dict(network.state), strict=True, assign=True)
    return built


def first_difference(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """Returns why a state dict does not fit a network of which ``own`` is one; nothing if it does.

    Args:
        state: The weights that are to be loaded.
        own: Those of the network.
    """
    for name, tensor in own.items():
        if name not in state:
            return f"{name} is missing"
        there, here = tuple(state[name].shape), tuple(tensor.shape)
        if there != here:
            return f"{name} has shape {there}, not {here}"
    unexpected = [name for name in state if name not in own]
    return f"{unexpected[0][:80]} is unexpected" if unexpected else ""


def latent_scale_of(channels: int) -> float:
    """Returns the scale of what a published model of so many channels makes; 1 for images."""
    return LATENT_SCALE if channels == LATENT_CHANNELS else 1.0


# --- The other way: a model in the published layout -----------------------------------------------


def public_state_dict(model: SampleModel) -> dict[str, Tensor]:
    """Returns the weights of a model under their public names; those of a deep one are plain.

    Raises:
        ValueError: If the published layout does not have such a model.
    """
    network = _transformer(model.generator)
    kinds = ("SamplePrediction", "VelocityPrediction")
    if model.conventions.parameterization not in kinds:
        raise ValueError(
            "The published layout has models that predict samples or velocities, not "
            f"{model.conventions.parameterization}: export it as safetensors."
        )
    if network.class_dropout_prob > 0:
        raise ValueError("The published layout has no null class: export it as safetensors.")
    if isinstance(model.generator, RepeatDepth) and model.generator.repeats == 1:
        raise ValueError(
            "The published layout does not tell a deep model of one repetition from a plain one, "
            "whose head sees the time as well: export it as safetensors."
        )
    for embedder in (network.t_embedder, network.t_tgt_embedder):
        if embedder is not None and embedder.time_scale != TIME_SCALE:
            raise ValueError(
                f"The published layout has times scaled by {TIME_SCALE:g}, not "
                f"{embedder.time_scale:g}: export it as safetensors."
            )
    return network.state_dict()


def generator_spec(generator: Generator) -> dict[str, Any]:
    """Returns the spec of a generator in the published layout.

    Raises:
        ValueError: If it is another.
    """
    network = _transformer(generator)
    heads = next(part.num_heads for part in network.modules() if isinstance(part, Attention))
    found = recognize(network.state_dict(), heads)
    spec = dict(type=found.type, **found.arguments)
    if isinstance(generator, RepeatDepth):
        return dict(type="RepeatDepth", repeats=generator.repeats, generator=spec)
    return spec


def _transformer(generator: Generator) -> DiTGenerator:
    network = generator.generator if isinstance(generator, RepeatDepth) else generator
    if not isinstance(network, DiTGenerator):
        raise ValueError(
            "The published layout has diffusion transformers, plain or under RepeatDepth, not a "
            f"{type(generator).__name__}: export it as safetensors."
        )
    return network
