r"""The layout of official checkpoints: recognizes a network by its state dict and file name.

========================================  ==========================================================
``x_embedder.proj.weight``                (hidden size, channels, patch, patch)
``pos_embed``                             (1, patches, hidden size)
``y_embedder.embedding_table.weight``     (classes, hidden size); a classifier has none
``t_embedder.*``, ``t_tgt_embedder.*``    present if the source or target time is embedded
``blocks.N.*``                            their number is the depth
``final_layer.linear.*``                  a generator
``dis_embed``, ``final_layer.1.weight``   a discriminator
``cls_embed``, ``final_layer.1.*``        a classifier of that many classes
========================================  ==========================================================

The shapes do not determine the number of attention heads. It is that of the official network of
this width, or an argument. The result is the arguments of a diffusion transformer of this library.
Loading the weights checks the rest.

A file name such as ``xl2_56layer_1nfe_guided_FID2.08.pth`` has what a state dict lacks: the number
of layers if blocks are repeated, and the number of network evaluations. The prediction type follows
from that: the networks with several evaluations predict a velocity ("v" in the paper), the others
the sample ("x").

References:
    | Adversarial Flow Models (Lin et al., 2025), Tables 4 to 7
    | https://arxiv.org/abs/2511.22475
"""

__all__ = [
    "OFFICIAL_FID",
    "OFFICIAL_FILES",
    "OFFICIAL_REPOSITORY",
    "OfficialName",
    "OfficialNetwork",
    "parse_name",
    "parse_nfe",
    "recognize",
]

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from afmlib.io.checked_files import CheckpointError

HEADS = {384: 6, 768: 12, 1024: 16, 1152: 16}
"""Hidden size -> attention heads of the official transformers."""

PATCHES, POSITIONS = "x_embedder.proj.weight", "pos_embed"
CLASSES = "y_embedder.embedding_table.weight"
TOKEN_HEAD = "final_layer.1.weight"
MARKS: dict[str, Literal["generator", "discriminator", "classifier"]] = {
    "dis_embed": "discriminator",
    "cls_embed": "classifier",
    "final_layer.linear.weight": "generator",
}
"""The key that identifies each kind of network."""


@dataclass(frozen=True)
class OfficialNetwork:
    """A state dict with the network that it belongs to."""

    kind: Literal["generator", "discriminator", "classifier"]

    arguments: Mapping[str, Any]
    """The arguments of DiTGenerator, DiTDiscriminator or DiTClassifier."""

    state: Mapping[str, Tensor]
    """The weights, with the parameter names of that class."""

    path: str
    """The file, for messages."""

    @property
    def type(self) -> str:
        """The registered name of the class."""
        return f"DiT{self.kind.capitalize()}"


def recognize(
    state: Mapping[str, Tensor], num_heads: int | None = None, path: str = "The state dict"
) -> OfficialNetwork:
    """Recognizes the network of a state dict in the official layout.

    Args:
        state: The weights. Their values are not read, so they may be on the meta device.
        num_heads: The number of attention heads. Defaults to that of the official network of this
            width.
        path: The name of the file in messages.

    Raises:
        CheckpointError: If it fits no official network, or the number of heads is unknown.
    """
    marks = [key for key in MARKS if key in state]
    if len(marks) != 1:
        raise CheckpointError(
            f"{path} is not an official network: it has {' and '.join(marks) or 'none'} of "
            "final_layer.linear.weight (generator), dis_embed (discriminator) and cls_embed "
            "(classifier), and needs exactly one."
        )
    kind = MARKS[marks[0]]
    hidden, channels, patch, _ = _shape(state, PATCHES, 4, path)
    _, tokens, _ = _shape(state, POSITIONS, 3, path)
    side = math.isqrt(tokens)
    if side * side != tokens:
        raise CheckpointError(f"{path} has {tokens} positions in pos_embed, not a square number.")
    blocks = [int(match[1]) for key in state if (match := re.match(r"blocks\.(\d{1,6})\.", key))]
    if not blocks:
        raise CheckpointError(f"{path} does not fit an official network: it has no blocks.")
    mlp_width = _shape(state, "blocks.0.mlp.fc1.weight", 2, path)[0]
    mlp_ratio = mlp_width / hidden
    if int(hidden * mlp_ratio) != mlp_width:  # The transformer rounds down.
        mlp_ratio = math.nextafter(mlp_ratio, math.inf)
    classes = _shape(state, TOKEN_HEAD if kind == "classifier" else CLASSES, 2, path)[0]
    arguments: dict[str, Any] = dict(
        input_size=side * patch,
        patch_size=patch,
        in_channels=channels,
        hidden_size=hidden,
        depth=max(blocks) + 1,
        num_heads=_heads(state, hidden, num_heads, path),
        mlp_ratio=mlp_ratio,
        num_classes=classes,
        qk_norm="blocks.0.attn.q_norm.weight" in state,
    )
    has_source, has_target = (
        any(key.startswith(f"{name}.") for key in state)
        for name in ("t_embedder", "t_tgt_embedder")
    )
    if kind == "generator":
        arguments |= dict(use_timestep_src=has_source, use_timestep_tgt=has_target)
    elif kind == "discriminator":
        arguments |= dict(use_timestep=has_source)
    return OfficialNetwork(kind, arguments, state, path)


def _shape(state: Mapping[str, Tensor], key: str, ndim: int, path: str) -> tuple[int, ...]:
    if key not in state:
        raise CheckpointError(f"{path} does not fit an official network: {key} is missing.")
    shape = tuple(state[key].shape)
    if len(shape) != ndim or 0 in shape:
        raise CheckpointError(
            f"{path} does not fit an official network: {key} has shape {shape}, expected {ndim} "
            "positive sizes."
        )
    return shape


def _heads(state: Mapping[str, Tensor], hidden: int, given: int | None, path: str) -> int:
    if given is not None:
        if given < 1 or hidden % given:
            raise CheckpointError(
                f"num_heads {given} does not divide the hidden size {hidden} of {path}."
            )
        return given
    if "blocks.0.attn.q_norm.weight" in state:  # Its length is the width of a head.
        (width,) = _shape(state, "blocks.0.attn.q_norm.weight", 1, path)
        if hidden % width == 0:
            return hidden // width
    if hidden not in HEADS:
        raise CheckpointError(
            f"{path} has hidden size {hidden}, which no official network has: give num_heads."
        )
    return HEADS[hidden]


# --- File names ---

DEPTHS = {"b2": 12, "m2": 16, "l2": 24, "xl2": 28}
"""The number of blocks of each official size."""

OFFICIAL_REPOSITORY = "ByteDance-Seed/Adversarial-Flow-Models"
"""The authors' repository on the Hugging Face Hub."""

OFFICIAL_FID: dict[str, float] = {
    "b2_1nfe_noguide": 6.07,
    "b2_1nfe_guided": 3.05,
    "m2_1nfe_noguide": 5.21,
    "m2_1nfe_guided": 2.82,
    "l2_1nfe_noguide": 4.36,
    "l2_1nfe_guided": 2.63,
    "xl2_1nfe_noguide": 3.98,
    "xl2_1nfe_guided": 2.38,
    "xl2_2nfe_noguide": 2.36,
    "xl2_2nfe_guided": 2.11,
    "xl2_4nfe_guided": 2.02,
    "xl2_56layer_1nfe_guided": 2.08,
    "xl2_112layer_1nfe_guided": 1.94,
}
"""The thirteen official generators, with the FID that the paper reports for each."""

OFFICIAL_FILES: dict[str, str] = {
    name: f"{name}_FID{2.03 if name == 'xl2_4nfe_guided' else fid:.2f}.pth"
    for name, fid in OFFICIAL_FID.items()
}
"""The file of each. The paper has both 2.02 and 2.03 for four steps, and the file 2.03."""

_NAME = re.compile(
    r"(?<![a-z0-9])(?P<size>b2|m2|l2|xl2)(?:_(?P<layers>\d{1,4})layer)?_(?P<nfe>\d{1,4})nfe(?!\d)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class OfficialName:
    """The settings in a file name; None if unknown."""

    nfe: int | None = None
    """The number of network evaluations per sample."""

    repeats: int | None = None
    """The number of times that the stack of blocks runs."""


def parse_name(path: str) -> OfficialName:
    """Parses a file name. The fields of any other name are None.

    Raises:
        ValueError: If the number of layers is not a multiple of the number of blocks.

    Example:
        >>> parse_name("hf://who/which/xl2_56layer_1nfe_guided_FID2.08.pth")
        OfficialName(nfe=1, repeats=2)
        >>> parse_name("renamed.pth")
        OfficialName(nfe=None, repeats=None)
    """
    match = _match(path)
    if match is None:
        return OfficialName()
    depth = DEPTHS[match["size"].lower()]
    layers = int(match["layers"] or depth)
    if layers < 1 or layers % depth:
        raise ValueError(
            f"The name {match.string} has {layers} layers, which is not a multiple of the {depth} "
            f"blocks of {match['size']}: give repeats."
        )
    return OfficialName(nfe=int(match["nfe"]), repeats=layers // depth)


def parse_nfe(path: str) -> int | None:
    """Parses only the number of network evaluations, without checking the layers.

    Example:
        >>> parse_nfe("xl2_57layer_1nfe.pth")
        1
    """
    match = _match(path)
    return None if match is None else int(match["nfe"])


def _match(path: str) -> re.Match[str] | None:
    return _NAME.search(path.rstrip("/").rsplit("/", 1)[-1])
