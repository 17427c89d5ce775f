r"""Which network a published state dict belongs to, read off its names and shapes.

========================================  ==========================================================
``x_embedder.proj.weight``                (hidden size, channels, patch, patch)
``pos_embed``                             (1, patches, hidden size)
``y_embedder.embedding_table.weight``     (classes, hidden size); a classifier has none
``t_embedder.*``, ``t_tgt_embedder.*``    present where a source, a target time is embedded
``blocks.N.*``                            their number is the depth
``final_layer.linear.*``                  a generator
``dis_embed``, ``final_layer.1.weight``   a discriminator
``cls_embed``, ``final_layer.1.*``        a classifier of that many classes
========================================  ==========================================================

No shape tells the number of attention heads: it is that of the published network of this width, or
has to be given. What is recognized are the arguments of the diffusion transformers here; whether
all weights fit shows when they are loaded.
"""

__all__ = ["PublishedNetwork", "recognize"]

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from afmlib.io.checked_files import CheckpointError

HEADS = {384: 6, 768: 12, 1024: 16, 1152: 16}
"""Hidden size -> attention heads of the transformers that were published."""

PATCHES, POSITIONS = "x_embedder.proj.weight", "pos_embed"
CLASSES = "y_embedder.embedding_table.weight"
TOKEN_HEAD = "final_layer.1.weight"
MARKS: dict[str, Literal["generator", "discriminator", "classifier"]] = {
    "dis_embed": "discriminator",
    "cls_embed": "classifier",
    "final_layer.linear.weight": "generator",
}
"""The key by which each kind is known."""


@dataclass(frozen=True)
class PublishedNetwork:
    """A state dict, and what it is of."""

    kind: Literal["generator", "discriminator", "classifier"]
    """Which network."""

    arguments: Mapping[str, Any]
    """The arguments of DiTGenerator, DiTDiscriminator or DiTClassifier."""

    state: Mapping[str, Tensor]
    """The weights, under the names that the class gives them."""

    path: str
    """Where they were read, for messages."""

    @property
    def type(self) -> str:
        """The registered name of the class."""
        return f"DiT{self.kind.capitalize()}"


def recognize(
    state: Mapping[str, Tensor], num_heads: int | None = None, path: str = "The state dict"
) -> PublishedNetwork:
    """Recognizes the network of a state dict in the published layout.

    Args:
        state: The weights; their values do not matter, so that they may be on the meta device.
        num_heads: The number of attention heads; that of the published network of this width
            unless given.
        path: What messages call it.

    Raises:
        CheckpointError: If it is of no such network, or the number of heads is unknown.
    """
    kinds = [kind for key, kind in MARKS.items() if key in state]
    if len(kinds) != 1:
        raise CheckpointError(
            f"{path} is no published network: it has {_marks_of(state)}, where a generator has "
            "final_layer.linear.weight, a discriminator dis_embed and a classifier cls_embed."
        )
    (kind,) = kinds
    hidden, channels, patch, _ = _shape(state, PATCHES, 4, path)
    _, tokens, _ = _shape(state, POSITIONS, 3, path)
    side = math.isqrt(tokens)
    if side * side != tokens:
        raise CheckpointError(f"{path} has {tokens} positions in pos_embed, which are no square.")
    classes = _shape(state, TOKEN_HEAD if kind == "classifier" else CLASSES, 2, path)[0]
    arguments: dict[str, Any] = dict(
        input_size=side * patch,
        patch_size=patch,
        in_channels=channels,
        hidden_size=hidden,
        depth=_depth(state, path),
        num_heads=_heads(state, hidden, num_heads, path),
        mlp_ratio=_ratio(_shape(state, "blocks.0.mlp.fc1.weight", 2, path)[0], hidden),
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
    return PublishedNetwork(kind, arguments, state, path)


def _marks_of(state: Mapping[str, Tensor]) -> str:
    return " and ".join(key for key in MARKS if key in state) or "no mark of any"


def _shape(state: Mapping[str, Tensor], key: str, ndim: int, path: str) -> tuple[int, ...]:
    if key not in state:
        raise CheckpointError(f"{path} does not fit a published network: {key} is missing.")
    shape = tuple(state[key].shape)
    if len(shape) != ndim or 0 in shape:
        raise CheckpointError(
            f"{path} does not fit a published network: {key} has shape {shape}, and {ndim} sizes "
            "are expected."
        )
    return shape


def _depth(state: Mapping[str, Tensor], path: str) -> int:
    found = {match[1] for key in state if (match := re.match(r"blocks\.(\d{1,6})\.", key))}
    if not found:
        raise CheckpointError(f"{path} does not fit a published network: it has no blocks.")
    return max(map(int, found)) + 1


def _heads(state: Mapping[str, Tensor], hidden: int, given: int | None, path: str) -> int:
    if given is not None:
        if given < 1 or hidden % given:
            raise CheckpointError(
                f"num_heads {given} does not divide the hidden size {hidden} of {path}."
            )
        return given
    if "blocks.0.attn.q_norm.weight" in state:  # One weight for each number of a head.
        (width,) = _shape(state, "blocks.0.attn.q_norm.weight", 1, path)
        if hidden % width == 0:
            return hidden // width
    if hidden not in HEADS:
        raise CheckpointError(
            f"{path} has hidden size {hidden}, for which no number of attention heads was "
            "published: give num_heads."
        )
    return HEADS[hidden]


def _ratio(width: int, hidden: int) -> float:
    """Returns the ratio of which the transformer makes this width again."""
    ratio = width / hidden
    return ratio if int(hidden * ratio) == width else math.nextafter(ratio, math.inf)
