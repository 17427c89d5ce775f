r"""The diffusion transformer as a classifier of noised latents, conditioned on their time.

References:
    | Adversarial Flow Models (Lin et al., 2025), Sec. 3.5, App. F
    | https://arxiv.org/abs/2511.22475
"""

__all__ = ["DiTClassifier"]

import torch
from torch import Tensor, nn

from afmlib.interfaces import AttentionBackend, Classifier
from afmlib.nn.dit import dit_blocks, token_head
from afmlib.nn.embeddings import PatchEmbed, TimestepEmbedder, position_embedding
from afmlib.typing import Latents, Timesteps


class DiTClassifier(Classifier):
    """A diffusion transformer with a [CLS] token in front of the patches.

    Args:
        input_size: The height and width of the latents.
        patch_size: The height and width of a patch, which divides them.
        in_channels: The number of channels.
        hidden_size: The width of the tokens.
        depth: The number of blocks.
        num_heads: The number of attention heads, which divides the width.
        mlp_ratio: The width of the MLPs, in units of ``hidden_size``.
        num_classes: The number of classes.
        qk_norm: Whether queries and keys are normalised, which bfloat16 needs.
        attention: The attention back-end: ``auto``, ``sdpa``, ``math`` or ``xformers``.

    Raises:
        ValueError: If sizes do not divide one another or are out of their domain.
    """

    def __init__(
        self,
        input_size: int = 32,
        patch_size: int = 2,
        in_channels: int = 4,
        hidden_size: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        num_classes: int = 1000,
        qk_norm: bool = False,
        attention: AttentionBackend | str = "auto",
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}.")
        self.x_embedder = PatchEmbed(input_size, patch_size, in_channels, hidden_size)
        self.pos_embed = nn.Parameter(
            position_embedding(input_size // patch_size, hidden_size), requires_grad=False
        )
        self.cls_embed = nn.Parameter(torch.empty(hidden_size))
        nn.init.normal_(self.cls_embed, std=0.02)
        self.t_embedder = TimestepEmbedder(hidden_size)
        self.blocks = dit_blocks(depth, hidden_size, num_heads, mlp_ratio, qk_norm, attention)
        self.final_layer = token_head(hidden_size, num_classes, bias=True)

    def forward(self, latents: Latents, timesteps: Timesteps) -> Tensor:
        """Returns the logits of the classes for latents at ``timesteps`` of the flow."""
        patches = self.x_embedder(latents) + self.pos_embed
        token = self.cls_embed.expand(len(patches), 1, -1).to(patches.dtype)
        tokens = torch.cat([token, patches], dim=1)  # (N, 1 + T, D)
        condition = self.t_embedder(timesteps)
        for block in self.blocks:
            tokens = block(tokens, condition)
        return self.final_layer(tokens[:, 0])
