r"""A U-Net that generates images: diffusers' ``UNet2DModel`` with the conditions of this library.

The default layout is that of DDPM++ (Song et al., 2020) as Karras et al. (2022) train it, on which
iCT, ECT and MeanFlow report CIFAR-10: residual blocks that also change the size, by averages and
nearest neighbors, and attention at 16 x 16. Labels and times are embedded as in the transformers
here. Their sum is added inside each residual block.

References:
    | Score-Based Generative Modeling through SDEs (Song et al., 2020), for DDPM++
    | https://arxiv.org/abs/2011.13456

    | Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022)
    | https://arxiv.org/abs/2206.00364

    | Diffusion Models Beat GANs on Image Synthesis (Dhariwal and Nichol, 2021), for scale and shift
    | https://arxiv.org/abs/2105.05233
"""

__all__ = ["UNetGenerator"]

from collections.abc import Sequence
from typing import Any

from einops import rearrange
from torch import Tensor, nn

from afmlib.interfaces import AttentionBackend, Generator
from afmlib.networks.checks import check_inputs
from afmlib.nn.attention import Attention
from afmlib.nn.embeddings import (
    LabelEmbedder,
    TimePair,
    TimestepEmbedder,
    add_conditions,
    add_time,
    check_time_pair,
    paired_time,
)
from afmlib.nn.normalization import GroupNorm, num_groups
from afmlib.typing import Labels, Latents, Timesteps

EPS = 1e-6


class UNetGenerator(Generator):
    """A U-Net that returns images of the shape it is given (``pip install 'afmlib[unet]'``).

    At initialization it returns zero, and its residual blocks pass on their inputs.

    Args:
        input_size: The height and width of the images. Each level but the first halves it.
        in_channels: The number of channels of the images.
        num_classes: The number of classes.
        widths: The width of each level, from the largest size to the smallest one.
        layers_per_block: The number of residual blocks of a level on the way down. There is one
            more on the way up.
        attention_sizes: The sizes of the levels with attention. The middle always has it.
        head_size: The width of an attention head, which divides the widths. Defaults to one head.
        scale_shift: Whether the embedding scales and shifts the normalized features, instead of
            being added to them.
        condition_size: The width of the embedding. Defaults to four times the first width.
        dropout: The probability of dropout in the residual blocks.
        class_dropout_prob: If positive, there is a null class of index ``num_classes``.
        attention: The attention backend: ``auto``, ``sdpa``, ``math`` or ``xformers``.
        use_timestep_src: Whether the source time is embedded.
        use_timestep_tgt: Whether the target time is embedded.
        time_pair: How the target time is embedded: "end" for the time itself, "difference" for the
            source time minus the target time.
        time_scale: The factor on times before their sinusoids are taken. Objectives that
            differentiate the network by its times need about 1.
        num_conditions: The number of more conditions of a sample, embedded as the times are.

    Raises:
        OSError: If diffusers is not installed.
        ValueError: If a number is out of its domain, or sizes do not divide one another.
    """

    def __init__(
        self,
        input_size: int,
        in_channels: int = 3,
        num_classes: int = 1,
        widths: Sequence[int] = (256, 256, 256),
        layers_per_block: int = 4,
        attention_sizes: Sequence[int] = (16,),
        head_size: int | None = None,
        scale_shift: bool = False,
        condition_size: int | None = None,
        dropout: float = 0.0,
        class_dropout_prob: float = 0.0,
        attention: AttentionBackend | str = "auto",
        use_timestep_src: bool = False,
        use_timestep_tgt: bool = False,
        time_pair: TimePair = "end",
        time_scale: float = 1000.0,
        num_conditions: int = 0,
    ) -> None:
        super().__init__()
        _check_sizes(input_size, widths, attention_sizes, head_size)
        if min(in_channels, num_classes, layers_per_block) < 1 or num_conditions < 0:
            raise ValueError(
                "in_channels, num_classes and layers_per_block must be at least 1 and "
                "num_conditions must not be negative, got "
                f"{in_channels}, {num_classes}, {layers_per_block} and {num_conditions}."
            )
        if not (0 <= class_dropout_prob <= 1 and 0 <= dropout < 1):
            raise ValueError(
                "class_dropout_prob must be in [0, 1] and dropout in [0, 1), "
                f"got {class_dropout_prob} and {dropout}."
            )
        check_time_pair(time_pair, use_timestep_tgt)
        self.latent_shape = (in_channels, input_size, input_size)
        self.num_classes = num_classes
        self.class_dropout_prob = class_dropout_prob
        self.embeds_timestep_src, self.embeds_timestep_tgt = use_timestep_src, use_timestep_tgt
        self.time_pair = time_pair
        self.embeds_time_difference = time_pair == "difference"
        width = 4 * widths[0] if condition_size is None else condition_size
        self.y_embedder = LabelEmbedder(num_classes + (class_dropout_prob > 0), width)
        self.t_embedder, self.t_tgt_embedder = (
            TimestepEmbedder(width, time_scale=time_scale) if used else None
            for used in (use_timestep_src, use_timestep_tgt)
        )
        self.num_conditions = num_conditions
        self.condition_embedders = nn.ModuleList(
            TimestepEmbedder(width, time_scale=time_scale) for _ in range(num_conditions)
        )
        has_attention = [input_size >> level in attention_sizes for level in range(len(widths))]
        self.unet = _unet(
            sample_size=input_size,
            in_channels=in_channels,
            out_channels=in_channels,
            block_out_channels=tuple(widths),
            layers_per_block=layers_per_block,
            down_block_types=tuple(
                "AttnDownBlock2D" if there else "ResnetDownsampleBlock2D" for there in has_attention
            ),
            up_block_types=tuple(
                "AttnUpBlock2D" if there else "ResnetUpsampleBlock2D"
                for there in reversed(has_attention)
            ),
            attention_head_dim=head_size,
            resnet_time_scale_shift="scale_shift" if scale_shift else "default",
            time_embedding_dim=width,
            norm_num_groups=num_groups(widths),
            dropout=dropout,
        )
        _replace_layers(self.unet, head_size, num_groups(widths), attention)

    def forward(
        self,
        latents: Latents,
        labels: Labels,
        timesteps_src: Timesteps | None = None,
        timesteps_tgt: Timesteps | None = None,
        conditions: Tensor | None = None,
    ) -> Latents:
        """Maps ``latents``. A time without an embedder is ignored.

        Args:
            latents: Where to start.
            labels: The classes.
            timesteps_src: The times of the latents.
            timesteps_tgt: The times of the result.
            conditions: The numbers of each sample, in ``num_conditions`` columns.

        Raises:
            ValueError: If an embedded time is missing, or an input does not fit.
        """
        check_inputs(
            self,
            self.latent_shape,
            latents,
            labels,
            timesteps_src=timesteps_src,
            timesteps_tgt=timesteps_tgt,
        )
        condition = self.y_embedder(labels)
        condition = add_time(condition, self.t_embedder, timesteps_src, "timesteps_src")
        second = paired_time(timesteps_src, timesteps_tgt, self.time_pair)
        condition = add_time(condition, self.t_tgt_embedder, second, "timesteps_tgt")
        condition = add_conditions(condition, self.condition_embedders, conditions)
        no_times = latents.new_zeros(len(latents))
        return self.unet(latents, no_times, class_labels=condition, return_dict=False)[0]


class ImageAttention(nn.Module):
    """Self-attention over the pixels of normalized images, with a residual connection.

    Args:
        channels: The number of channels.
        head_size: The width of a head; None for one head.
        groups: The number of groups of the normalization.
        attention: The attention backend.
    """

    def __init__(
        self, channels: int, head_size: int | None, groups: int, attention: AttentionBackend | str
    ) -> None:
        super().__init__()
        self.norm = GroupNorm(groups, channels, eps=EPS)
        num_heads = 1 if head_size is None else channels // head_size
        self.attn = Attention(channels, num_heads, attention=attention)
        nn.init.zeros_(self.attn.proj.weight)
        nn.init.zeros_(self.attn.proj.bias)

    def forward(self, images: Tensor, temb: Tensor | None = None) -> Tensor:
        del temb  # Which the middle passes.
        tokens = rearrange(self.norm(images), "n c h w -> n (h w) c")
        mixed = rearrange(self.attn(tokens), "n (h w) c -> n c h w", h=images.shape[2])
        return images + mixed


def _check_sizes(
    input_size: int, widths: Sequence[int], attention_sizes: Sequence[int], head_size: int | None
) -> None:
    if not widths or min(widths) < 4 or any(width % 4 for width in widths):
        raise ValueError(f"widths must be multiples of 4, one per level, got {list(widths)}.")
    halvings = len(widths) - 1
    if input_size < 1 or input_size % 2**halvings:
        raise ValueError(
            f"input_size {input_size} cannot be halved {halvings} times: give fewer widths."
        )
    sizes = [input_size >> level for level in range(len(widths))]
    if not set(attention_sizes) <= set(sizes):
        raise ValueError(
            f"attention_sizes must be among the sizes of the levels, {sizes}, "
            f"got {list(attention_sizes)}."
        )
    if head_size is not None and (head_size < 1 or any(width % head_size for width in widths)):
        raise ValueError(f"head_size {head_size} does not divide widths {list(widths)}.")


def _unet(**arguments: Any) -> Any:
    """Returns the U-Net of diffusers, which takes a condition in the place of labels."""
    try:
        from diffusers import UNet2DModel
    except ImportError as error:
        raise OSError(
            "UNetGenerator needs the package diffusers: pip install 'afmlib[unet]'"
        ) from error
    unet = UNet2DModel(
        downsample_type="resnet",
        upsample_type="resnet",
        norm_eps=EPS,
        class_embed_type="identity",
        **arguments,
    )
    # It adds the embedding of its own time to the condition: here a column of zeros.
    unet.time_proj = nn.Unflatten(0, (-1, 1))
    unet.time_embedding = nn.Identity()
    return unet


def _replace_layers(
    unet: nn.Module, head_size: int | None, groups: int, attention: AttentionBackend | str
) -> None:
    """Puts in attention and normalization with all derivatives, and starts branches at zero."""
    for block in list(unet.modules()):
        attentions: Any = getattr(block, "attentions", None) or []
        for index, old in enumerate(attentions):
            width = old.to_q.in_features
            attentions[index] = ImageAttention(width, head_size, groups, attention)
    for parent in list(unet.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.GroupNorm:
                norm = GroupNorm(child.num_groups, child.num_channels, eps=child.eps)
                setattr(parent, name, norm)
            elif name in ("conv2", "conv_out"):
                assert isinstance(child, nn.Conv2d)
                assert child.bias is not None
                nn.init.zeros_(child.weight)
                nn.init.zeros_(child.bias)
