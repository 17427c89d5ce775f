r"""The diffusion transformer as a discriminator, which reads its logit off a learned token.

At the start the gates of all blocks are zero, so that the logit does not depend on the latents:
the discriminator has to step first.

References:
    | Adversarial Flow Models (Lin et al., 2025), Sec. 3.7, Table 10
    | https://arxiv.org/abs/2511.22475
"""

__all__ = ["DiTDiscriminator"]

import torch
from torch import nn

from afmlib.interfaces import AttentionBackend, Discriminator
from afmlib.nn.dit import dit_blocks, token_head
from afmlib.nn.embeddings import (
    LabelEmbedder,
    PatchEmbed,
    TimestepEmbedder,
    add_time,
    position_embedding,
)
from afmlib.typing import Labels, Latents, Logits, Timesteps


class DiTDiscriminator(Discriminator):
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
        class_dropout_prob: If positive, there is a null class of index ``num_classes``.
        qk_norm: Whether queries and keys are normalised, which bfloat16 needs.
        attention: The attention back-end: ``auto``, ``sdpa``, ``math`` or ``xformers``.
        use_timestep: Whether the time of the latents is embedded.

    Raises:
        ValueError: If sizes do not divide one another or are out of their domain.
    """

    def __init__(
        self,
        input_size: int = 32,
        patch_size: int = 2,
        in_channels: int = 4,
        hidden_size: int = 1152,
        depth: int = 28,
        num_heads: int = 16,
        mlp_ratio: float = 4.0,
        num_classes: int = 1000,
        class_dropout_prob: float = 0.0,
        qk_norm: bool = False,
        attention: AttentionBackend | str = "auto",
        use_timestep: bool = False,
    ) -> None:
        super().__init__()
        if num_classes < 1 or not 0 <= class_dropout_prob <= 1:
            raise ValueError(
                "num_classes must be at least 1 and class_dropout_prob in [0, 1], "
                f"got {num_classes} and {class_dropout_prob}."
            )
        self.x_embedder = PatchEmbed(input_size, patch_size, in_channels, hidden_size)
        self.pos_embed = nn.Parameter(
            position_embedding(input_size // patch_size, hidden_size), requires_grad=False
        )
        self.dis_embed = nn.Parameter(torch.empty(hidden_size))
        nn.init.normal_(self.dis_embed, std=0.02)
        self.y_embedder = LabelEmbedder(num_classes + (class_dropout_prob > 0), hidden_size)
        self.embeds_timestep = use_timestep
        self.t_embedder = TimestepEmbedder(hidden_size) if use_timestep else None
        self.blocks = dit_blocks(depth, hidden_size, num_heads, mlp_ratio, qk_norm, attention)
        self.final_layer = token_head(hidden_size, 1, bias=False)

    def forward(
        self, latents: Latents, labels: Labels, timesteps: Timesteps | None = None
    ) -> Logits:
        """Scores ``latents``; the time is ignored if there is no embedder for it.

        Raises:
            ValueError: If it is missing and there is one.
        """
        patches = self.x_embedder(latents) + self.pos_embed
        token = self.dis_embed.expand(len(patches), 1, -1).to(patches.dtype)
        tokens = torch.cat([token, patches], dim=1)  # (N, 1 + T, D)
        condition = self.y_embedder(labels)
        condition = add_time(condition, self.t_embedder, timesteps, "timesteps")
        for block in self.blocks:
            tokens = block(tokens, condition)
        return self.final_layer(tokens[:, 0]).squeeze(1)
