r"""The weights of DiT, SiT and REPA, in the conventions of this library.

All three have the parameter names of our transformer. The differences are in their meaning:

======  =======================  ======================  =====================================
source  path                     network                 here
======  =======================  ======================  =====================================
SiT     0 noise, 1 data          data - noise            :math:`-g(x, 1 - t)`, exactly
REPA    0 data, 1 noise          noise - data            the same; its projectors are not used
DiT     variance-preserving      the noise               the same; only a start for training
======  =======================  ======================  =====================================

SiT and REPA embed the time itself (``time_scale=1``), and DiT 1000 times it. The reversed time of
SiT is exact: it rotates each pair of sinusoids, and the first layer of the time embedder takes the
rotation. Half of the outputs of DiT and SiT are a variance that sampling does not use.

References:
    | Scalable Diffusion Models with Transformers (Peebles and Xie, 2022)
    | https://arxiv.org/abs/2212.09748

    | SiT: Exploring Flow and Diffusion-based Generative Models with Scalable Interpolant
      Transformers (Ma et al., 2024)
    | https://arxiv.org/abs/2401.08740

    | Representation Alignment for Generation: Training Diffusion Transformers Is Easier Than You
      Think (Yu et al., 2024)
    | https://arxiv.org/abs/2410.06940
"""

__all__ = ["SOURCES", "TIME_SCALES", "convert", "find_source", "fit"]

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from afmlib.io.checked_files import CheckpointError
from afmlib.io.official_layout import parse_nfe

SOURCES = {"dit": "DiT", "sit": "SiT", "repa": "REPA"}
TIME_SCALES = {"dit": 1000.0, "sit": 1.0, "repa": 1.0}
HEAD, TABLE = "final_layer.linear", "y_embedder.embedding_table.weight"
FIRST_TIME_LAYER = "t_embedder.mlp.0.weight"
HEAD_AND_TIME = ("final_layer.", "t_embedder.")
LISTED = 12
"""The problems that a message lists at most."""


def find_source(state: Mapping[str, Tensor], path: str, given: str | None = None) -> str | None:
    """Returns which of the three methods trained the weights; None for any other file.

    Args:
        state: The weights.
        path: The file, whose name may say it.
        given: The source, if the user gave it.

    Raises:
        CheckpointError: If it is one of them, but neither weights nor name say which.
    """
    if given is not None:
        return given
    if any(name.startswith(("projectors.", "decoder_blocks.")) for name in state):
        return "repa"
    if f"{HEAD}.weight" not in state or FIRST_TIME_LAYER not in state:
        return None
    name = path.rsplit("/", 1)[-1].lower()
    if parse_nfe(name) is not None:
        return None  # An official file of AFM.
    match = re.search(r"(?<![a-z])(dit|sit|repa)(?![a-z])", name)
    if match:
        return match[1]
    if _has_variance(state):
        raise CheckpointError(
            f"{path} has the layout of DiT and SiT, which differ in meaning: give "
            "init_from.source, 'dit' or 'sit'."
        )
    return None


def _has_variance(state: Mapping[str, Tensor]) -> bool:
    patches = state.get("x_embedder.proj.weight")
    return patches is not None and len(state[f"{HEAD}.weight"]) == 2 * patches[0].numel()


def convert(state: Mapping[str, Tensor], source: str) -> tuple[dict[str, Tensor], list[str]]:
    """Returns the weights in the conventions of this library, and the names of unused parts.

    Args:
        state: The weights of the file.
        source: A key of `SOURCES`.
    """
    left_out = []
    depth = len({name.split(".")[1] for name in state if name.startswith("blocks.")})
    converted = {}
    for name, value in state.items():
        if name.startswith("projectors."):
            continue
        if name.startswith("decoder_blocks."):  # Older files of REPA.
            _, index, rest = name.split(".", 2)
            name = f"blocks.{int(index) + depth}.{rest}"
        converted[name] = value
    if len(converted) < len(state):
        left_out.append("projectors")
    if f"{HEAD}.weight" in state and _has_variance(state):
        patch = state["x_embedder.proj.weight"].shape[-1]
        for name in (f"{HEAD}.weight", f"{HEAD}.bias"):
            values = converted[name]
            parts = values.reshape(patch * patch, 2, -1, *values.shape[1:])
            converted[name] = parts[:, 0].reshape(-1, *values.shape[1:])
        left_out.append("the variance")
    if source == "sit":
        for name in (f"{HEAD}.weight", f"{HEAD}.bias"):
            if name in converted:
                converted[name] = -converted[name]
        if FIRST_TIME_LAYER in converted:
            converted[FIRST_TIME_LAYER] = _reverse_time(converted[FIRST_TIME_LAYER])
    return converted, left_out


def _reverse_time(weight: Tensor) -> Tensor:
    r"""Returns weights that do to the sinusoids of t what the given ones do to those of 1 - t.

    :math:`\cos \omega (1 - t) = \cos \omega \cos \omega t + \sin \omega \sin \omega t`, and
    :math:`\sin \omega (1 - t) = \sin \omega \cos \omega t - \cos \omega \sin \omega t`.
    """
    half = weight.shape[1] // 2
    exponents = torch.arange(half, dtype=torch.float64) / half
    omega = torch.exp(-math.log(10_000.0) * exponents)
    cosines, sines = weight.double().chunk(2, dim=1)
    turned = [
        cosines * omega.cos() + sines * omega.sin(),
        cosines * omega.sin() - sines * omega.cos(),
    ]
    return torch.cat(turned, dim=1).to(weight.dtype)


def fit(
    state: Mapping[str, Tensor], source: str, module: nn.Module, player: str, path: str
) -> tuple[dict[str, Tensor], str]:
    """Fits weights to a network of this library.

    A target-time embedder that the file lacks starts at zero, so that the network starts as the
    given one. A discriminator takes the body and keeps its own head and time embedder.

    Args:
        state: The weights of the file.
        source: A key of `SOURCES`.
        module: The generator or the discriminator.
        player: Its name in messages.
        path: The file, for messages.

    Returns:
        The complete state dict of the network, and a description of unused and new parts.

    Raises:
        CheckpointError: If they do not fit. It names every difference.
    """
    given, left_out = convert(state, source)
    own: dict[str, Tensor] = module.state_dict()
    new: list[str] = []
    is_generator = player == "generator"
    problems = _time_problems(given, source, module) if is_generator else []
    if not is_generator:
        given = {name: value for name, value in given.items() if not name.startswith(HEAD_AND_TIME)}
        left_out += ["the head", "the time embedder"]
        new += ["the head"] + (["the time embedder"] if FIRST_TIME_LAYER in own else [])
    elif any(name.startswith("t_tgt_embedder.") for name in own.keys() - given.keys()):
        new.append("t_tgt_embedder, at zero")
    table = given.get(TABLE)
    if table is not None and TABLE in own and len(table) == len(own[TABLE]) + 1:
        given[TABLE] = table[:-1]
        left_out.append("the null class")
    result = dict(own)
    wrong: dict[str, str] = {}  # One of all blocks is enough.
    for name in sorted(own.keys() | given.keys()):
        pattern = re.sub(r"^blocks\.\d+", "blocks", name)
        if name not in given:
            if is_generator and name.startswith("t_tgt_embedder."):
                if name.startswith("t_tgt_embedder.mlp.2."):
                    result[name] = torch.zeros_like(own[name])
            elif is_generator or not name.startswith(("dis_embed", *HEAD_AND_TIME)):
                wrong.setdefault(pattern, f"{name} is missing in the file")
        elif name not in own:
            if not (is_generator and name.startswith("t_embedder.")):  # Already said.
                wrong.setdefault(pattern, f"the {player} has no {name}")
        elif given[name].shape != own[name].shape:
            shapes = tuple(given[name].shape), tuple(own[name].shape)
            text = f"{name} has shape {shapes[0]}, and the {player} {shapes[1]}"
            wrong.setdefault(pattern, text)
        else:
            result[name] = given[name]
    problems += wrong.values()
    if problems:
        more = f" (and {len(problems) - LISTED} more)" if len(problems) > LISTED else ""
        raise CheckpointError(
            f"{path} ({SOURCES[source]}) does not fit the {player}: "
            f"{'; '.join(problems[:LISTED])}{more}."
        )
    said = [f"not used: {', '.join(left_out)}"] if left_out else []
    said += [f"new: {', '.join(new)}"] if new else []
    return result, "; ".join([SOURCES[source], *said])


def _time_problems(given: Mapping[str, Any], source: str, module: nn.Module) -> list[str]:
    embedder = getattr(module, "t_embedder", None)
    scale = TIME_SCALES[source]
    if embedder is None:
        return ["the generator embeds no time: set its use_timestep_src to true"]
    if embedder.time_scale != scale:
        return [f"the time_scale of the generator is {embedder.time_scale:g}: set it to {scale:g}"]
    return []
