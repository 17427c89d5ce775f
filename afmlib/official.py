r"""Loading official checkpoints: the files published by the authors of AFM.

The weights determine the network. The file name or arguments give the rest: the repeats of the
blocks in a deep model, the number of network evaluations, and the prediction type.

============================  =====================  ==============================================
weights                       name or argument       model
============================  =====================  ==============================================
no time embedder                                     one step
``t_embedder``                ``nfe`` of 2 or more   that many steps, predicts "velocity"
``t_embedder``                ``repeats``            one step, deep: the blocks run that many times
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
    "load_ported",
    "official_state_dict",
]

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from afmlib.interfaces import (
    Classifier,
    Conventions,
    Discriminator,
    Generator,
    Parameterization,
    SampleModel,
)
from afmlib.io.checked_files import CheckpointError
from afmlib.io.diffusers_layout import from_diffusers
from afmlib.io.official_files import read_official
from afmlib.io.official_layout import (
    OfficialName,
    OfficialNetwork,
    parse_name,
    parse_nfe,
    recognize,
)
from afmlib.io.size_limit import build_for
from afmlib.networks.dit import DiTGenerator
from afmlib.networks.repeat import RepeatDepth
from afmlib.nn.attention import Attention
from afmlib.nn.embeddings import position_embedding
from afmlib.parameterizations import SamplePrediction, VelocityPrediction
from afmlib.registry import build_classifier, build_discriminator, build_generator

LATENT_CHANNELS, LATENT_SCALE = 4, 0.18215
"""The channels and latent scale of the autoencoder sd-vae-ft-mse, used by the official models."""

TIME_SCALE = 1000.0
"""The factor on times in the official networks."""

PREDICTIONS: dict[str, type[Parameterization]] = {
    "x": SamplePrediction,
    "v": VelocityPrediction,
    "sample": SamplePrediction,
    "velocity": VelocityPrediction,
}
"""The prediction types, by the paper's names and the names in this library."""


def load_official(
    path: str,
    repeats: int | None = None,
    nfe: int | None = None,
    prediction: str | None = None,
    num_heads: int | None = None,
    device: torch.device | str = "cpu",
) -> SampleModel | Discriminator | Classifier:
    """Loads an official checkpoint: a generator, a discriminator or a classifier.

    Args:
        path: The file, ``.pth`` or ``.safetensors``: a path or a URL. A remote file is cached in
            ``$AFMLIB_CACHE``, which defaults to ``~/.cache/afmlib``.
        repeats: The number of times that the blocks of a deep model run. Defaults to that in the
            file name.
        nfe: The number of network evaluations per sample. Defaults to that in the file name.
        prediction: "sample" or "velocity". Defaults to "velocity" for several evaluations and
            "sample" for one, as published.
        num_heads: The number of attention heads. Defaults to that of the official network of this
            width.
        device: The device of the result.

    Returns:
        A model for :func:`afmlib.sample` for a generator, else the network. All weights are frozen.

    Raises:
        CheckpointError: If the file is corrupt or fits no official network.
        ValueError: If a setting is missing, or an argument contradicts the weights.
        OSError: If it cannot be read.
    """
    path = str(path)
    try:
        network = read_official(path, num_heads)
    except IsADirectoryError:
        raise CheckpointError(
            f"{path} is a folder: load a run, a checkpoint or an export with load_checkpoint."
        ) from None
    if network.kind == "generator":
        choice = _choose(network, repeats, nfe, prediction)
        built: nn.Module = _sample_model(network, choice)
    else:
        given = dict(repeats=repeats, nfe=nfe, prediction=prediction)
        for name, value in given.items():
            if value is not None:
                raise ValueError(f"{path} is a {network.kind}, which has no {name}, got {value!r}.")
        build = {"discriminator": build_discriminator, "classifier": build_classifier}
        built = _load(network, build[network.kind])
    built = built.to(device).requires_grad_(False).eval()
    assert isinstance(built, SampleModel | Discriminator | Classifier)
    return built


def load_ported(
    folder: str,
    config: Mapping[str, Any],
    state: Mapping[str, Tensor],
    device: torch.device | str = "cpu",
) -> SampleModel:
    """Loads a generator of the port of the official checkpoints to diffusers.

    Its weights and settings are those of the official file. The times are those of the authors:
    diffusers would embed them with other frequencies.

    Args:
        folder: The folder of the pipeline, for messages.
        config: The config of its generator.
        state: The weights of its generator.
        device: The device of the result.

    Raises:
        CheckpointError: If they do not fit.
    """
    try:
        size, patch, hidden = (config[key] for key in ("input_size", "patch_size", "hidden_size"))
        weights = dict(state)
        if "x_embedder.proj.weight" not in weights:
            weights = from_diffusers(weights, position_embedding(size // patch, hidden))
        deep = config.get("architecture") == "deep"
        if not (config.get("use_t_src") or deep):  # The port stores zeros.
            weights = {n: w for n, w in weights.items() if not n.startswith("t_embedder.")}
        table = "y_embedder.embedding_table.weight"
        weights[table] = weights[table][: config["num_classes"]]  # The port adds a null class.
        network = recognize(weights, config["num_heads"], folder)
        repeats, nfe = (config.get("repeat", 1) if deep else 1), config["num_inference_steps"]
        prediction = PREDICTIONS[config["pred_type"]]()
    except (KeyError, TypeError, ZeroDivisionError) as error:
        raise CheckpointError(
            f"{folder} does not fit the port of AFM: it has no {error}."
        ) from error
    built = _sample_model(network, _Choice(repeats, nfe, prediction))
    return built.to(device).requires_grad_(False).eval()


@dataclass(frozen=True)
class _Choice:
    """The settings of a generator that its weights do not determine."""

    repeats: int
    nfe: int
    parameterization: Parameterization


def _choose(
    network: OfficialNetwork, repeats: int | None, nfe: int | None, prediction: str | None
) -> _Choice:
    """Takes the settings from the arguments, else from the file name, else from the weights."""
    path = network.path
    has_source = network.arguments["use_timestep_src"]
    any_step = network.arguments["use_timestep_tgt"]
    for name, value in (("repeats", repeats), ("nfe", nfe)):
        if value is not None and (type(value) is not int or value < 1):
            raise ValueError(f"{name} must be at least 1, got {value!r}.")
    if prediction is not None and prediction not in PREDICTIONS:
        raise ValueError(f"prediction must be 'sample' or 'velocity', got {prediction!r}.")
    both_given = repeats is not None and nfe is not None
    # An argument above 1 settles the kind of model. Then the name does not set the other one.
    named = parse_name(path) if repeats is None and nfe in (None, 1) else OfficialName()
    if nfe is None and repeats in (None, 1):
        nfe = parse_nfe(path)
    repeats = repeats or named.repeats
    if any_step:
        if prediction is None:
            raise ValueError(
                f"{path} is an any-step model. These have no default prediction: give prediction."
            )
        if (repeats or 1) > 1:
            raise ValueError(f"{path} has a t_tgt_embedder, so it cannot have repeats {repeats}.")
    elif has_source and not both_given and (repeats or 1) == (nfe or 1) == 1:
        if nfe == 1 or repeats == 1:
            missing = "repeats" if nfe == 1 else "nfe"
            raise ValueError(
                f"{path} has a t_embedder, so it is not a plain one-step model: give {missing}."
            )
        raise ValueError(
            f"{path} has a t_embedder, so it is a multi-step or a deep model: give nfe (2 or 4) "
            "or repeats (2 or 4)."
        )
    repeats, nfe = repeats or 1, nfe or 1
    if repeats > 1 and nfe > 1:
        raise ValueError(
            f"Deep models have one step: {path} cannot have repeats {repeats} and nfe {nfe}."
        )
    if not has_source and not any_step and max(repeats, nfe) > 1:
        name, value = ("repeats", repeats) if repeats > 1 else ("nfe", nfe)
        raise ValueError(
            f"{path} is a plain one-step model without t_embedder: {name} is 1, not {value}."
        )
    return _Choice(repeats, nfe, PREDICTIONS[prediction or ("v" if nfe > 1 else "x")]())


def _sample_model(network: OfficialNetwork, choice: _Choice) -> SampleModel:
    spec = dict(network.arguments)
    generator = _load(network, build_generator)
    if choice.repeats > 1:
        deep = dict(type="RepeatDepth", repeats=choice.repeats, generator=generator)
        generator = build_generator(deep)
    conventions = Conventions(
        objective="AdversarialFlow",
        parameterization=type(choice.parameterization).__name__,
        nfe=choice.nfe,
        any_nfe=spec["use_timestep_tgt"],
        num_classes=spec["num_classes"],
        latent_shape=(spec["in_channels"], spec["input_size"], spec["input_size"]),
        latent_scale=latent_scale_of(spec["in_channels"]),
    )
    return SampleModel(generator, choice.parameterization, conventions)


def _load(network: OfficialNetwork, build: Callable[..., Any]) -> Any:
    """Builds a network on the meta device and assigns the weights to it."""
    spec = dict(type=network.type, **network.arguments)
    try:
        with torch.device("meta"):
            built: nn.Module = build_for(network.state, lambda: build(spec))
    except ValueError as error:
        raise CheckpointError(f"{network.path} does not fit a {network.type}: {error}") from error
    problem = first_difference(network.state, built.state_dict())
    if problem:
        raise CheckpointError(f"{network.path} does not fit a {network.type}: {problem}.")
    built.load_state_dict(dict(network.state), strict=True, assign=True)
    return built


def first_difference(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    """Returns the first difference between two state dicts, or "" if the first fits the second.

    Args:
        state: The weights to load.
        expected: The state dict of the network.
    """
    for name, tensor in expected.items():
        if name not in state:
            return f"{name} is missing"
        there, here = tuple(state[name].shape), tuple(tensor.shape)
        if there != here:
            return f"{name} has shape {there}, not {here}"
    unexpected = [name for name in state if name not in expected]
    return f"{unexpected[0][:80]} is unexpected" if unexpected else ""


def latent_scale_of(channels: int) -> float:
    """Returns the latent scale of an official model with this many channels; 1 for images."""
    return LATENT_SCALE if channels == LATENT_CHANNELS else 1.0


# --- Export to the official layout ---


def official_state_dict(model: SampleModel) -> dict[str, Tensor]:
    """Returns the weights of a model in the official layout, for a deep model without its repeats.

    Raises:
        ValueError: If the official layout does not support the model.
    """
    network = _transformer(model.generator)
    kinds = ("SamplePrediction", "VelocityPrediction")
    if model.conventions.parameterization not in kinds:
        raise ValueError(
            "The official layout has models that predict samples or velocities, not "
            f"{model.conventions.parameterization}: export as safetensors."
        )
    if network.class_dropout_prob > 0:
        raise ValueError("The official layout has no null class: export as safetensors.")
    if isinstance(model.generator, RepeatDepth) and model.generator.repeats == 1:
        raise ValueError(
            "The official layout does not distinguish a deep model with repeats 1 from a plain "
            "one: export as safetensors."
        )
    for embedder in (network.t_embedder, network.t_tgt_embedder):
        if embedder is not None and embedder.time_scale != TIME_SCALE:
            raise ValueError(
                f"The official layout has time_scale {TIME_SCALE:g}, not {embedder.time_scale:g}: "
                "export as safetensors."
            )
    return network.state_dict()


def generator_spec(generator: Generator) -> dict[str, Any]:
    """Returns the spec of a generator in the official layout.

    Raises:
        ValueError: If the official layout does not support the generator.
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
            "The official layout has diffusion transformers, plain or in RepeatDepth, not "
            f"{type(generator).__name__}: export as safetensors."
        )
    return network
