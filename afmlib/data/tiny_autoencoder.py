r"""A small convolutional autoencoder that learns from the training images.

It brings the pipeline of latent models to images of 28 to 64 pixels: a 32x32 image becomes a code
of 8x4x4, so that a transformer sees 16 tokens. Three halvings encode an image as a Gaussian of mean
:math:`\mu` and standard deviation :math:`\sigma`; three doublings decode a sample of it. The loss
of an image :math:`x` with :math:`d` pixels and a code of :math:`k` numbers is

.. math:: \frac{1}{d} \| x - \hat{x} \|_2^2
    + \frac{\lambda}{k} \, \mathrm{KL}(\mathcal{N}(\mu, \sigma^2) \, \| \, \mathcal{N}(0, 1))

with a small :math:`\lambda`, which keeps the codes smooth. The code is
:math:`s \, (\mu + \sigma \epsilon)`, where :math:`s` brings the codes of the training images to
unit variance.

References:
    | Auto-Encoding Variational Bayes (Kingma and Welling, 2013)
    | https://arxiv.org/abs/1312.6114

    | High-Resolution Image Synthesis with Latent Diffusion Models (Rombach et al., 2021), for the
      small weight of the divergence
    | https://arxiv.org/abs/2112.10752
"""

__all__ = ["TinyAutoencoder"]

import copy
import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss, pad

from afmlib.interfaces import Autoencoder, Dataset
from afmlib.io.trained_weights import hash_of, trained_weights
from afmlib.ops.seeding import permutation
from afmlib.typing import Latents

RECIPE = 1
"""Increased by any change of this file that changes the weights.

The weights of MNIST in the package began with biases that were not seeded. Training again gives an
autoencoder of the same quality, but not the same one.
"""

REDUCTION = 8
"""The ratio of the sides of an image and of its code."""

GROUPS = 8
MAX_IMAGES = 20_000
"""The most training images; of more, a fixed choice is used."""

BATCH_SIZE = 64
LR = 2e-3
WARMUP = 50
LOG_DEVIATIONS = (-8.0, 2.0)
READ_AT_ONCE = 256


class TinyAutoencoder(Autoencoder):
    """An autoencoder of small images with about 0.2 M parameters.

    It learns from the images of the first dataset that uses it, and is cached in the folder
    ``AFMLIB_CACHE`` (an environment variable, by default ``~/.cache/afmlib``) by the content of the
    images. 1500 steps take two minutes of a CPU core for gray images of 32 pixels. Training uses
    one thread and random numbers of its own. Checkpoints of a run keep the weights.

    Args:
        in_channels: 1 for gray images, 3 for color.
        size: The side of an image. If it is not a multiple of 8, images are padded by their border.
        latent_channels: The channels of a code, whose side is an eighth of that of the image.
        width: The channels of the layer next to the image, a multiple of 16. The inner layers have
            two and three times as many.
        kl_scale: The weight of the divergence, per number of the code.
        num_steps: The number of training steps with 64 images each.

    Raises:
        ValueError: If an argument is out of its domain.

    Example:
        >>> from afmlib.data.digits import Digits
        >>> autoencoder = TinyAutoencoder(in_channels=1, size=8, width=16, num_steps=3)
        >>> autoencoder.latent_shape
        (8, 1, 1)
    """

    scale: Tensor

    def __init__(
        self,
        in_channels: int = 3,
        size: int = 32,
        latent_channels: int = 8,
        width: int = 32,
        kl_scale: float = 0.003,
        num_steps: int = 1500,
    ) -> None:
        super().__init__()
        if in_channels not in (1, 3):
            raise ValueError(f"in_channels must be 1 or 3, got {in_channels}.")
        if min(size, latent_channels, num_steps) < 1:
            raise ValueError(
                "size, latent_channels and num_steps must be at least 1, got "
                f"{size}, {latent_channels} and {num_steps}."
            )
        if width < 1 or width % 16:
            raise ValueError(f"width must be a multiple of 16, got {width}.")
        if not 0 <= kl_scale < math.inf:
            raise ValueError(f"kl_scale must be at least 0, got {kl_scale}.")
        self.in_channels = in_channels
        self.size = size
        self.latent_channels = latent_channels
        self.width = width
        self.kl_scale = kl_scale
        self.num_steps = num_steps
        self.padding = -size % REDUCTION
        self.encoder = _encoder(in_channels, latent_channels, width)
        self.decoder = _decoder(in_channels, latent_channels, width)
        self.register_buffer("scale", torch.tensor(math.nan))
        self.requires_grad_(False).eval()

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """The shape of a code."""
        side = (self.size + self.padding) // REDUCTION
        return (self.latent_channels, side, side)

    @property
    def spec(self) -> dict[str, Any]:
        """The arguments that build it again."""
        names = ("in_channels", "size", "latent_channels", "width", "kl_scale", "num_steps")
        return {"type": type(self).__name__, **{name: getattr(self, name) for name in names}}

    @property
    def latent_scale(self) -> float:  # type: ignore[override]
        """The factor that scales the codes of the training images to unit variance.

        Raises:
            RuntimeError: If it was not trained.
        """
        scale = float(self.scale)
        if math.isnan(scale):
            raise RuntimeError(
                "This TinyAutoencoder has not seen any images: call fit(images), or use it as the "
                "autoencoder of LatentImages."
            )
        return scale

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.spec.items() if name != "type")

    def posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mean and standard deviation of the codes of images in [-1, 1], unscaled."""
        before = self.padding // 2
        after = self.padding - before
        padded = pad(images.to(self.scale.dtype), (before, after, before, after), mode="replicate")
        means, deviations = self.encoder(padded).chunk(2, dim=1)
        return means, (deviations.clamp(*LOG_DEVIATIONS) / 2).exp()

    def encode(self, images: Tensor, generator: torch.Generator | None = None) -> Latents:
        """Samples the codes of images in [-1, 1]. Without a generator, returns their means.

        The noise is drawn on the CPU, so that it does not depend on the device.
        """
        means, stds = self.posterior(images)
        if generator is None:
            return self.latent_scale * means
        noises = torch.randn(means.shape, generator=generator, dtype=torch.float32)
        return self.latent_scale * (means + stds * noises.to(means))

    def decode(self, latents: Latents) -> Tensor:
        """Decodes to images, clipped to [-1, 1]."""
        return self._decode(latents.to(self.scale.dtype) / self.latent_scale).clamp(-1, 1)

    def _decode(self, codes: Tensor) -> Tensor:
        start = self.padding // 2
        return self.decoder(codes)[..., start : start + self.size, start : start + self.size]

    def fit(self, images: Dataset) -> None:
        """Trains on images in [-1, 1], or loads the weights of an earlier training on them.

        Raises:
            ValueError: If the images have another shape.
        """
        shape = (self.in_channels, self.size, self.size)
        if tuple(images.latent_shape) != shape:
            channels, side = images.latent_shape[0], images.latent_shape[-1]
            raise ValueError(
                f"This TinyAutoencoder is for images of shape {shape}, and those of "
                f"{type(images).__name__} are {tuple(images.latent_shape)}: set in_channels to "
                f"{channels} and size to {side}."
            )
        pixels = _read(images)
        name = f"tiny-autoencoder-{hash_of(pixels, self.spec | {'recipe': RECIPE})}"
        what = f"a small autoencoder on {len(pixels)} images"
        weights = trained_weights(name, what, lambda steps: self._train(pixels, steps))
        self.load_state_dict(weights)

    def _train(self, pixels: Tensor, steps: Callable[[int], Iterable[int]]) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(0)
        network = copy.deepcopy(self).requires_grad_(True)
        for name, parameter in network.named_parameters():
            if parameter.ndim > 1:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
                nn.init.kaiming_uniform_(parameter, a=math.sqrt(5), generator=generator)
            else:  # The scales of the normalization are the other weights.
                nn.init.constant_(parameter, 1.0 if name.endswith("weight") else 0.0)
        optimizer = torch.optim.AdamW(network.parameters(), lr=LR)
        batch = min(BATCH_SIZE, len(pixels))
        per_epoch = len(pixels) // batch
        for step in steps(self.num_steps):
            if step % per_epoch == 0:
                order = torch.randperm(len(pixels), generator=generator)
            rows = order[step % per_epoch * batch :][:batch]
            loss = network._loss(_to_images(pixels[rows]), generator)
            decay = 0.5 * (1 + math.cos(math.pi * step / self.num_steps))
            optimizer.param_groups[0]["lr"] = LR * min((step + 1) / WARMUP, 1.0) * decay
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
        network.requires_grad_(False)
        parts = [network.posterior(_to_images(part)) for part in torch.split(pixels, READ_AT_ONCE)]
        means, stds = (torch.cat(some).double() for some in zip(*parts, strict=True))
        variance = (means.square() + stds.square()).mean() - means.mean().square()
        network.scale.copy_(variance.rsqrt())
        return {name: value.contiguous() for name, value in network.state_dict().items()}

    def _loss(self, images: Tensor, generator: torch.Generator) -> Tensor:
        means, stds = self.posterior(images)
        noises = torch.randn(means.shape, generator=generator)
        error = mse_loss(self._decode(means + stds * noises), images)
        divergence = 0.5 * (means.square() + stds.square() - 1) - stds.log()
        return error + self.kl_scale * divergence.mean()


def _encoder(in_channels: int, latent_channels: int, width: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in ((in_channels, width), (width, 2 * width), (2 * width, 3 * width)):
        layers += [nn.Conv2d(before, after, 4, 2, 1), nn.GroupNorm(GROUPS, after), nn.SiLU()]
    return nn.Sequential(*layers, nn.Conv2d(3 * width, 2 * latent_channels, 1))


def _decoder(in_channels: int, latent_channels: int, width: int) -> nn.Sequential:
    inner, last = 3 * width, width // 2
    layers: list[nn.Module] = [nn.Conv2d(latent_channels, inner, 3, padding=1)]
    layers += [nn.GroupNorm(GROUPS, inner), nn.SiLU()]
    for before, after in ((inner, 2 * width), (2 * width, width), (width, last)):
        layers += [nn.Upsample(scale_factor=2), nn.Conv2d(before, after, 3, padding=1)]
        layers += [nn.GroupNorm(GROUPS, after), nn.SiLU()]
    return nn.Sequential(*layers, nn.Conv2d(last, in_channels, 3, padding=1))


def _read(images: Dataset) -> Tensor:
    """Returns plain training images as uint8, in the order of a fixed permutation if too many."""
    rows = list(range(len(images)))
    if len(rows) > MAX_IMAGES:
        rows = sorted(permutation(len(rows), 0)[:MAX_IMAGES])
    parts = []
    for start in range(0, len(rows), READ_AT_ONCE):
        stored, _ = images.__getitems__(rows[start : start + READ_AT_ONCE])
        parts.append(((images.augment(stored, None) + 1) * 127.5).round().clamp(0, 255).byte())
    return torch.cat(parts)


def _to_images(pixels: Tensor) -> Tensor:
    images = pixels.to(torch.float32) / 127.5 - 1
    return images.contiguous(memory_format=torch.channels_last)
