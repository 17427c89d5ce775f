r"""Diffusion transformers: the generator, the discriminator and the classifier of noisy latents.

The output of the discriminator and of the classifier is that of a learned token before the patches.
Parameter names equal those of the DiT reference, so that official state dicts load strictly.

References:
    | Scalable Diffusion Models with Transformers (Peebles and Xie, 2022)
    | https://arxiv.org/abs/2212.09748

    | Adversarial Flow Models (Lin et al., 2025), Sec. 3.5, 3.7, App. F, Table 10
    | https://arxiv.org/abs/2511.22475
"""

__all__ = ["DiTClassifier", "DiTDiscriminator", "DiTGenerator"]


import torch
from einops import rearrange
from torch import Tensor, nn

from afmlib.interfaces import AttentionBackend, Classifier, Discriminator, RepeatableGenerator
from afmlib.networks.checks import check_inputs
from afmlib.nn.dit import FinalLayer, dit_blocks, read_first_token, token_head
from afmlib.nn.embeddings import (
    LabelEmbedder,
    PatchEmbed,
    TimePair,
    TimestepEmbedder,
    add_conditions,
    add_time,
    check_time_pair,
    paired_time,
    position_embedding,
)
from afmlib.typing import Labels, Latents, Logits, Timesteps


class DiTGenerator(RepeatableGenerator):
    r"""A diffusion transformer that returns latents of the shape it is given.

    At initialization it returns zero: the mean of the data for a sample prediction, and the
    identity for a velocity prediction.

    Args:
        hidden_size: The width of the tokens.
        depth: The number of blocks.
        num_heads: The number of attention heads, which divides the width.
        input_size: The height and width of the latents.
        patch_size: The height and width of a patch, which divides them.
        in_channels: The number of channels.
        mlp_ratio: The width of the MLPs, in units of ``hidden_size``.
        num_classes: The number of classes.
        class_dropout_prob: If positive, there is a null class of index ``num_classes``.
        qk_norm: Whether queries and keys are normalized, which bfloat16 needs.
        attention: The attention backend: ``auto``, ``sdpa``, ``math`` or ``xformers``.
        use_timestep_src: Whether the source time is embedded.
        use_timestep_tgt: Whether the target time is embedded.
        time_pair: How the target time is embedded: "end" for the time itself, "difference" for the
            source time minus the target time.
        time_scale: The factor on times before their sinusoids are taken. Objectives that
            differentiate the network by its times need about 1.
        num_conditions: The number of more conditions of a sample, embedded as the times are.
        velocity_depth: If positive, a second head of that many blocks, with the same input as the
            last blocks of the first one, returns a velocity.

    Raises:
        ValueError: If sizes do not divide one another or are out of their domain.
    """

    def __init__(
        self,
        *,
        hidden_size: int,
        depth: int,
        num_heads: int,
        input_size: int = 32,
        patch_size: int = 2,
        in_channels: int = 4,
        mlp_ratio: float = 4.0,
        num_classes: int = 1000,
        class_dropout_prob: float = 0.0,
        qk_norm: bool = False,
        attention: AttentionBackend | str = "auto",
        use_timestep_src: bool = False,
        use_timestep_tgt: bool = False,
        time_pair: TimePair = "end",
        time_scale: float = 1000.0,
        num_conditions: int = 0,
        velocity_depth: int = 0,
    ) -> None:
        super().__init__()
        if num_classes < 1 or not 0 <= class_dropout_prob <= 1:
            raise ValueError(
                "num_classes must be at least 1 and class_dropout_prob in [0, 1], "
                f"got {num_classes} and {class_dropout_prob}."
            )
        if num_conditions < 0 or not 0 <= velocity_depth <= depth:
            raise ValueError(
                "num_conditions must not be negative and velocity_depth must be from 0 to depth, "
                f"got {num_conditions} and {velocity_depth} of {depth}."
            )
        self.latent_shape = (in_channels, input_size, input_size)
        self.num_classes = num_classes
        self.class_dropout_prob = class_dropout_prob
        self.embeds_timestep_src, self.embeds_timestep_tgt = use_timestep_src, use_timestep_tgt
        check_time_pair(time_pair, use_timestep_tgt)
        self.time_pair = time_pair
        self.embeds_time_difference = time_pair == "difference"
        self.patch_size = patch_size
        self.x_embedder = PatchEmbed(input_size, patch_size, in_channels, hidden_size)
        self.pos_embed = nn.Parameter(
            position_embedding(input_size // patch_size, hidden_size), requires_grad=False
        )
        self.y_embedder = LabelEmbedder(num_classes + (class_dropout_prob > 0), hidden_size)
        self.t_embedder, self.t_tgt_embedder = (
            TimestepEmbedder(hidden_size, time_scale=time_scale) if used else None
            for used in (use_timestep_src, use_timestep_tgt)
        )
        self.num_conditions = num_conditions
        self.condition_embedders = nn.ModuleList(
            TimestepEmbedder(hidden_size, time_scale=time_scale) for _ in range(num_conditions)
        )
        self.blocks = dit_blocks(depth, hidden_size, num_heads, mlp_ratio, qk_norm, attention)
        self.final_layer = FinalLayer(hidden_size, patch_size**2 * in_channels)
        self.velocity_depth, self.has_velocity_head = velocity_depth, velocity_depth > 0
        if velocity_depth > 0:
            self.velocity_blocks = dit_blocks(
                velocity_depth, hidden_size, num_heads, mlp_ratio, qk_norm, attention
            )
            self.velocity_layer = FinalLayer(hidden_size, patch_size**2 * in_channels)

    @property
    def num_blocks(self) -> int:
        """The number of blocks of the body."""
        return len(self.blocks)

    def embed(self, latents: Latents, labels: Labels) -> tuple[Tensor, Tensor]:
        """Returns the tokens, and the condition of the labels without a time."""
        check_inputs(self, self.latent_shape, latents, labels)
        return self.x_embedder(latents) + self.pos_embed, self.y_embedder(labels)

    def embed_time(self, value: float | Tensor) -> Tensor:
        """Returns the embedding of source times, to be added to the condition.

        Raises:
            ValueError: If the generator was built without ``use_timestep_src``.
        """
        if self.t_embedder is None:
            raise ValueError(
                "This generator does not embed a time: build it with use_timestep_src=True."
            )
        times = torch.as_tensor(value, device=self.pos_embed.device)
        return self.t_embedder(times.reshape(-1))

    def run_block(self, index: int, tokens: Tensor, condition: Tensor) -> Tensor:
        """Runs one block of the body."""
        return self.blocks[index](tokens, condition)

    def head(self, tokens: Tensor, condition: Tensor) -> Latents:
        """Turns the tokens into latents."""
        return self._join_patches(self.final_layer(tokens, condition))

    def _join_patches(self, patches: Tensor) -> Latents:
        assert self.latent_shape is not None
        return rearrange(
            patches,
            "n (h w) (p q c) -> n c (h p) (w q)",
            h=self.latent_shape[1] // self.patch_size,
            p=self.patch_size,
            q=self.patch_size,
        )

    def forward(
        self,
        latents: Latents,
        labels: Labels,
        timesteps_src: Timesteps | None = None,
        timesteps_tgt: Timesteps | None = None,
        conditions: Tensor | None = None,
        mean: bool = True,
        velocity: bool = False,
    ) -> Tensor:
        """Maps ``latents``. A time without an embedder is ignored.

        Args:
            latents: Where to start.
            labels: The classes.
            timesteps_src: The times of the latents.
            timesteps_tgt: The times of the result.
            conditions: The numbers of each sample, in ``num_conditions`` columns.
            mean: Whether to compute the first head.
            velocity: Whether to compute the second head. With both, the two are stacked.

        Raises:
            ValueError: If an embedded time is missing, an input does not fit, or there is no such
                head.
        """
        check_inputs(
            self,
            self.latent_shape,
            latents,
            labels,
            timesteps_src=timesteps_src,
            timesteps_tgt=timesteps_tgt,
        )
        tokens, condition = self.embed(latents, labels)
        condition = add_time(condition, self.t_embedder, timesteps_src, "timesteps_src")
        second = paired_time(timesteps_src, timesteps_tgt, self.time_pair)
        condition = add_time(condition, self.t_tgt_embedder, second, "timesteps_tgt")
        condition = add_conditions(condition, self.condition_embedders, conditions)
        if velocity and not self.has_velocity_head:
            raise ValueError("There is no velocity head: set velocity_depth.")
        if not (mean or velocity):
            raise ValueError("Choose at least one head: mean or velocity.")
        num_shared = self.num_blocks - self.velocity_depth
        for index in range(num_shared):
            tokens = self.run_block(index, tokens, condition)
        made, trunk = [], tokens
        if mean:
            for index in range(num_shared, self.num_blocks):
                tokens = self.run_block(index, tokens, condition)
            made.append(self.head(tokens, condition))
        if velocity:
            for block in self.velocity_blocks:
                trunk = block(trunk, condition)
            made.append(self._join_patches(self.velocity_layer(trunk, condition)))
        return torch.stack(made) if mean and velocity else made[0]


class DiTDiscriminator(Discriminator):
    """A diffusion transformer with a [CLS] token before the patches.

    Args:
        hidden_size: The width of the tokens.
        depth: The number of blocks.
        num_heads: The number of attention heads, which divides the width.
        input_size: The height and width of the latents.
        patch_size: The height and width of a patch, which divides them.
        in_channels: The number of channels.
        mlp_ratio: The width of the MLPs, in units of ``hidden_size``.
        num_classes: The number of classes.
        class_dropout_prob: If positive, there is a null class of index ``num_classes``.
        qk_norm: Whether queries and keys are normalized, which bfloat16 needs.
        attention: The attention backend: ``auto``, ``sdpa``, ``math`` or ``xformers``.
        use_timestep: Whether the time of the latents is embedded.
        time_scale: The factor on times before their sinusoids are taken. Objectives that
            differentiate the network by its time need about 1.

    Raises:
        ValueError: If sizes do not divide one another or are out of their domain.
    """

    def __init__(
        self,
        *,
        hidden_size: int,
        depth: int,
        num_heads: int,
        input_size: int = 32,
        patch_size: int = 2,
        in_channels: int = 4,
        mlp_ratio: float = 4.0,
        num_classes: int = 1000,
        class_dropout_prob: float = 0.0,
        qk_norm: bool = False,
        attention: AttentionBackend | str = "auto",
        use_timestep: bool = False,
        time_scale: float = 1000.0,
    ) -> None:
        super().__init__()
        if num_classes < 1 or not 0 <= class_dropout_prob <= 1:
            raise ValueError(
                "num_classes must be at least 1 and class_dropout_prob in [0, 1], "
                f"got {num_classes} and {class_dropout_prob}."
            )
        self.latent_shape = (in_channels, input_size, input_size)
        self.num_classes = num_classes
        self.x_embedder = PatchEmbed(input_size, patch_size, in_channels, hidden_size)
        self.pos_embed = nn.Parameter(
            position_embedding(input_size // patch_size, hidden_size), requires_grad=False
        )
        self.dis_embed = nn.Parameter(torch.empty(hidden_size))
        nn.init.normal_(self.dis_embed, std=0.02)
        self.y_embedder = LabelEmbedder(num_classes + (class_dropout_prob > 0), hidden_size)
        self.embeds_timestep = use_timestep
        self.t_embedder = (
            TimestepEmbedder(hidden_size, time_scale=time_scale) if use_timestep else None
        )
        self.blocks = dit_blocks(depth, hidden_size, num_heads, mlp_ratio, qk_norm, attention)
        self.final_layer = token_head(hidden_size, 1, bias=False)

    def forward(
        self, latents: Latents, labels: Labels, timesteps: Timesteps | None = None
    ) -> Logits:
        """Scores ``latents``. Without an embedder, the time is ignored.

        Raises:
            ValueError: If an embedded time is missing, or an input does not fit.
        """
        check_inputs(self, self.latent_shape, latents, labels, timesteps=timesteps)
        patches = self.x_embedder(latents) + self.pos_embed
        token = self.dis_embed.expand(len(patches), 1, -1).to(patches.dtype)
        tokens = torch.cat([token, patches], dim=1)  # (N, 1 + T, D)
        condition = self.y_embedder(labels)
        condition = add_time(condition, self.t_embedder, timesteps, "timesteps")
        token = read_first_token(self.blocks, tokens, condition)
        return self.final_layer(token).squeeze(1)


class DiTClassifier(Classifier):
    """A diffusion transformer with a [CLS] token before the patches.

    Args:
        hidden_size: The width of the tokens.
        depth: The number of blocks.
        num_heads: The number of attention heads, which divides the width.
        input_size: The height and width of the latents.
        patch_size: The height and width of a patch, which divides them.
        in_channels: The number of channels.
        mlp_ratio: The width of the MLPs, in units of ``hidden_size``.
        num_classes: The number of classes.
        qk_norm: Whether queries and keys are normalized, which bfloat16 needs.
        attention: The attention backend: ``auto``, ``sdpa``, ``math`` or ``xformers``.

    Raises:
        ValueError: If sizes do not divide one another or are out of their domain.
    """

    def __init__(
        self,
        *,
        hidden_size: int,
        depth: int,
        num_heads: int,
        input_size: int = 32,
        patch_size: int = 2,
        in_channels: int = 4,
        mlp_ratio: float = 4.0,
        num_classes: int = 1000,
        qk_norm: bool = False,
        attention: AttentionBackend | str = "auto",
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}.")
        self.latent_shape = (in_channels, input_size, input_size)
        self.num_classes = num_classes
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
        """Returns the logits of the classes for latents at ``timesteps`` of the flow.

        Raises:
            ValueError: If an input does not fit.
        """
        check_inputs(self, self.latent_shape, latents, timesteps=timesteps)
        patches = self.x_embedder(latents) + self.pos_embed
        token = self.cls_embed.expand(len(patches), 1, -1).to(patches.dtype)
        tokens = torch.cat([token, patches], dim=1)  # (N, 1 + T, D)
        condition = self.t_embedder(timesteps)
        return self.final_layer(read_first_token(self.blocks, tokens, condition))
