r"""Embeddings of the diffusion transformer: patches, positions, labels and times.

References:
    | Scalable Diffusion Models with Transformers (Peebles and Xie, 2022)
    | https://arxiv.org/abs/2212.09748
"""

__all__ = [
    "LabelEmbedder",
    "PatchEmbed",
    "TimePair",
    "TimestepEmbedder",
    "add_conditions",
    "add_time",
    "check_time_pair",
    "paired_time",
    "position_embedding",
    "sinusoids",
]

import math
from typing import Literal, TypeAlias

import torch
from einops import rearrange
from torch import Tensor, nn

from afmlib.typing import Labels, Latents, Timesteps


def sinusoids(values: Tensor, dim: int, max_period: float = 10_000.0) -> Tensor:
    r"""Returns :math:`[\cos(v \omega_k), \sin(v \omega_k)]`, :math:`\omega_k = P^{-k / K}`.

    Args:
        values: The numbers :math:`v`, one per row.
        dim: The width :math:`2 K` of a row.
        max_period: The longest period :math:`P`, which the lowest frequency approaches.
    """
    half = dim // 2
    exponents = torch.arange(half, dtype=values.dtype, device=values.device) / half
    angles = values[:, None] * torch.exp(-math.log(max_period) * exponents)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def position_embedding(size: int, dim: int) -> Tensor:
    r"""Returns the fixed two-dimensional position embedding of a grid, in row-major order.

    The first half of an embedding encodes the column and the second half the row of the patch, both
    as :math:`[\sin(p \omega_k), \cos(p \omega_k)]`.

    Raises:
        ValueError: If ``dim`` is not divisible by 4.
    """
    if dim % 4:
        raise ValueError(f"hidden_size must be divisible by 4, got {dim}.")
    if torch.get_default_device().type == "meta":  # Where torch would import its compiler.
        return torch.empty(1, size**2, dim)
    index = torch.arange(size, dtype=torch.float64)
    waves = sinusoids(index, dim // 2)  # [cos, sin]
    waves = waves.roll(dim // 4, dims=1)  # [sin, cos]
    columns = waves.repeat(size, 1)
    rows = waves.repeat_interleave(size, 0)
    return torch.cat([columns, rows], dim=1).to(torch.get_default_dtype())[None]


class PatchEmbed(nn.Module):
    """Cuts images into square patches and projects each to a token.

    Args:
        input_size: The height and width of the images.
        patch_size: The height and width of a patch. It must divide ``input_size``.
        in_channels: The number of channels.
        hidden_size: The width of a token.

    Raises:
        ValueError: If ``patch_size`` does not divide ``input_size``, or a size is not positive.
    """

    def __init__(
        self, input_size: int, patch_size: int, in_channels: int, hidden_size: int
    ) -> None:
        super().__init__()
        if in_channels < 1 or hidden_size < 1:
            raise ValueError(
                "in_channels and hidden_size must be at least 1, "
                f"got {in_channels} and {hidden_size}."
            )
        if patch_size < 1 or input_size < 1 or input_size % patch_size:
            raise ValueError(f"patch_size {patch_size} does not divide input_size {input_size}.")
        self.proj = nn.Conv2d(in_channels, hidden_size, patch_size, patch_size)
        nn.init.xavier_uniform_(self.proj.weight.flatten(1))
        assert self.proj.bias is not None
        nn.init.zeros_(self.proj.bias)

    def forward(self, latents: Latents) -> Tensor:
        # Row-major order.
        return rearrange(self.proj(latents), "n d h w -> n (h w) d")


class LabelEmbedder(nn.Module):
    """A table with one vector per class, plus one for the null class if needed.

    Args:
        num_rows: The number of vectors.
        hidden_size: The width of a vector.
    """

    def __init__(self, num_rows: int, hidden_size: int) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(num_rows, hidden_size)
        nn.init.normal_(self.embedding_table.weight, std=0.02)

    def forward(self, labels: Labels) -> Tensor:
        try:
            return self.embedding_table(labels)
        except IndexError:  # On a CPU. Checking on a GPU would wait for it.
            raise ValueError(
                f"labels must be from 0 to {self.embedding_table.num_embeddings - 1}, got "
                f"{labels.min().item()} to {labels.max().item()}."
            ) from None


class TimestepEmbedder(nn.Module):
    """An MLP on sinusoids of the scaled time.

    The sinusoids are computed in float32 or better. In bfloat16, 750 would become 752.

    Args:
        hidden_size: The width of the embedding.
        frequency_size: The number of sinusoids.
        time_scale: The factor on the time: the highest frequency of the sinusoids, in radians. A
            larger factor separates nearby times better, but makes the derivative with respect to
            the time larger.

    Raises:
        ValueError: If ``time_scale`` is not positive.
    """

    def __init__(
        self, hidden_size: int, frequency_size: int = 256, time_scale: float = 1000.0
    ) -> None:
        super().__init__()
        if not time_scale > 0:
            raise ValueError(f"time_scale must be positive, got {time_scale}.")
        self.frequency_size = frequency_size
        self.time_scale = time_scale
        first, second = nn.Linear(frequency_size, hidden_size), nn.Linear(hidden_size, hidden_size)
        for layer in (first, second):
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
        self.mlp = nn.Sequential(first, nn.SiLU(), second)

    def forward(self, timesteps: Timesteps) -> Tensor:
        precise = timesteps.to(torch.promote_types(timesteps.dtype, torch.float32))
        waves = sinusoids(self.time_scale * precise, self.frequency_size)
        return self.mlp(waves.to(next(self.mlp.parameters()).dtype))


def add_time(
    condition: Tensor, embedder: TimestepEmbedder | None, timesteps: Timesteps | None, name: str
) -> Tensor:
    """Adds the embedding of a time to a condition. Without an embedder the time is ignored.

    Raises:
        ValueError: If there is an embedder but no time.
    """
    if embedder is None:
        return condition
    if timesteps is None:
        raise ValueError(f"This network embeds {name}, which are missing.")
    return condition + embedder(timesteps)


def add_conditions(condition: Tensor, embedders: nn.ModuleList, numbers: Tensor | None) -> Tensor:
    """Adds the embedding of more numbers per sample, one column per embedder, to a condition.

    Raises:
        ValueError: If the numbers are missing or have another shape.
    """
    if not embedders and numbers is None:
        return condition
    shape = (len(condition), len(embedders))
    if numbers is None or tuple(numbers.shape) != shape:
        seen = "none" if numbers is None else f"shape {tuple(numbers.shape)}"
        raise ValueError(f"This network takes conditions of shape {shape}, got {seen}.")
    for embedder, column in zip(embedders, numbers.unbind(1), strict=True):
        condition = condition + embedder(column)
    return condition


TimePair: TypeAlias = Literal["end", "difference"]


def check_time_pair(time_pair: str, use_timestep_tgt: bool) -> None:
    """Checks how a network embeds the target time.

    Raises:
        ValueError: If it is unknown, or a difference of a target that is not embedded.
    """
    if time_pair not in ("end", "difference"):
        raise ValueError(f"time_pair must be 'end' or 'difference', got {time_pair!r}.")
    if time_pair == "difference" and not use_timestep_tgt:
        raise ValueError(
            "time_pair='difference' embeds the target: it needs use_timestep_tgt=True."
        )


def paired_time(
    timesteps_src: Timesteps | None,
    timesteps_tgt: Timesteps | None,
    time_pair: TimePair,
) -> Timesteps | None:
    """Returns the number that is embedded as the second time: the target, or source minus target.

    Raises:
        ValueError: If the difference needs a source that is missing.
    """
    if time_pair == "end" or timesteps_tgt is None:
        return timesteps_tgt
    if timesteps_src is None:
        raise ValueError(
            "This network embeds timesteps_src - timesteps_tgt: the source is missing."
        )
    return timesteps_src - timesteps_tgt
