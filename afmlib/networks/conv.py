r"""A convolutional discriminator of images: the way down of the U-Net, with a projected label.

Residual blocks map an image :math:`x` at time :math:`t` to features :math:`h`, averaged over all
positions. The label :math:`y` enters by an inner product with them:

.. math:: D(x, y, t) = w^\top h(x, t) + b + e_y^\top h(x, t)

References:
    | cGANs with Projection Discriminator (Miyato and Koyama, 2018)
    | https://arxiv.org/abs/1802.05637
"""

__all__ = ["ConvDiscriminator"]

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, silu

from afmlib.interfaces import Discriminator
from afmlib.networks.checks import check_inputs
from afmlib.nn.embeddings import LabelEmbedder, TimestepEmbedder, add_time
from afmlib.nn.normalization import GroupNorm, num_groups
from afmlib.typing import Labels, Latents, Logits, Timesteps


class ConvDiscriminator(Discriminator):
    """A convolutional discriminator, smooth and without attention.

    Args:
        input_size: The height and width of the images. Each level but the first halves it.
        in_channels: The number of channels of the images.
        num_classes: The number of classes.
        widths: The width of each level, from the largest size to the smallest one.
        layers_per_block: The number of residual blocks of a level.
        class_dropout_prob: If positive, there is a null class of index ``num_classes``.
        use_timestep: Whether the time of the images is embedded, in each residual block.

    Raises:
        ValueError: If a number is out of its domain, or the size cannot be halved that often.
    """

    def __init__(
        self,
        input_size: int,
        in_channels: int = 3,
        num_classes: int = 1,
        widths: Sequence[int] = (128, 256, 256),
        layers_per_block: int = 2,
        class_dropout_prob: float = 0.0,
        use_timestep: bool = False,
    ) -> None:
        super().__init__()
        if not widths or min(widths) < 4 or any(width % 4 for width in widths):
            raise ValueError(f"widths must be multiples of 4, one per level, got {list(widths)}.")
        halvings = len(widths) - 1
        if input_size < 1 or input_size % 2**halvings:
            raise ValueError(
                f"input_size {input_size} cannot be halved {halvings} times: give fewer widths."
            )
        if min(in_channels, num_classes, layers_per_block) < 1:
            raise ValueError(
                "in_channels, num_classes and layers_per_block must be at least 1, "
                f"got {in_channels}, {num_classes} and {layers_per_block}."
            )
        if not 0 <= class_dropout_prob <= 1:
            raise ValueError(f"class_dropout_prob must be in [0, 1], got {class_dropout_prob}.")
        self.latent_shape = (in_channels, input_size, input_size)
        self.num_classes = num_classes
        self.embeds_timestep = use_timestep
        groups, before, last = num_groups(widths), widths[0], widths[-1]
        self.t_embedder = TimestepEmbedder(4 * widths[0]) if use_timestep else None
        self.input = nn.Conv2d(in_channels, before, 3, padding=1)
        self.blocks = nn.ModuleList()
        for level, width in enumerate(widths):
            for index in range(layers_per_block):
                halve = level > 0 and index == 0
                embedding = 4 * widths[0] if use_timestep else None
                self.blocks.append(ResidualBlock(before, width, groups, halve, embedding))
                before = width
        self.norm = GroupNorm(groups, last)
        self.head = nn.Linear(last, 1)
        self.y_embedder = LabelEmbedder(num_classes + (class_dropout_prob > 0), last)

    def forward(
        self, latents: Latents, labels: Labels, timesteps: Timesteps | None = None
    ) -> Logits:
        """Scores ``latents``. Without an embedder, the time is ignored.

        Raises:
            ValueError: If an embedded time is missing, or an input does not fit.
        """
        check_inputs(self, self.latent_shape, latents, labels, timesteps=timesteps)
        directions, time = self.y_embedder(labels), None
        if self.t_embedder is not None:
            time = add_time(directions.new_zeros(1), self.t_embedder, timesteps, "timesteps")
        images = self.input(latents)
        for block in self.blocks:
            images = block(images, time)
        features = silu(self.norm(images)).mean((2, 3))  # (N, C)
        return self.head(features).squeeze(1) + (directions * features).sum(1)


class ResidualBlock(nn.Module):
    """Two normalized convolutions with a skip connection, as in the U-Net.

    Args:
        before: The number of channels of the input.
        width: The number of channels of the output.
        groups: The number of groups of the normalization.
        halve: Whether the height and width are halved first.
        embedding_size: The width of the embedding of the time; None for no time.
    """

    def __init__(
        self, before: int, width: int, groups: int, halve: bool, embedding_size: int | None
    ) -> None:
        super().__init__()
        self.halve = halve
        self.norm1, self.norm2 = GroupNorm(groups, before), GroupNorm(groups, width)
        self.conv1 = nn.Conv2d(before, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.time = None if embedding_size is None else nn.Linear(embedding_size, width)
        self.skip = nn.Identity() if before == width else nn.Conv2d(before, width, 1, bias=False)

    def forward(self, images: Tensor, time: Tensor | None) -> Tensor:
        hidden = silu(self.norm1(images))
        if self.halve:
            images, hidden = avg_pool2d(images, 2), avg_pool2d(hidden, 2)
        hidden = self.conv1(hidden)
        if self.time is not None:
            assert time is not None
            hidden = hidden + self.time(silu(time))[:, :, None, None]
        hidden = self.conv2(silu(self.norm2(hidden)))
        return (self.skip(images) + hidden) * 0.5**0.5
