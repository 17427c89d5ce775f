r"""The autoencoder of latent models, from diffusers: sd-vae-ft-mse and similar ones.

An image is encoded as a Gaussian of mean :math:`\mu` and standard deviation :math:`\sigma`. The
code is :math:`s \, (\mu + \sigma \epsilon)`, where the scale :math:`s` brings codes to unit
variance. For sd-vae-ft-mse, :math:`s` is 0.18215, and the code of a 256x256 image has 4 channels of
32x32.

References:
    | High-Resolution Image Synthesis with Latent Diffusion Models (Rombach et al., 2021)
    | https://arxiv.org/abs/2112.10752

    | The weights: https://huggingface.co/stabilityai/sd-vae-ft-mse
"""

__all__ = ["DiffusersAutoencoder"]

import math
import os
from typing import Any

import torch
from torch import Tensor

from afmlib.interfaces import Autoencoder
from afmlib.typing import Latents


class DiffusersAutoencoder(Autoencoder):
    """A frozen ``AutoencoderKL`` of diffusers (``pip install 'afmlib[vae]'``).

    Args:
        path: A local folder with ``config.json`` and weights in safetensors, or the name of a
            repository of the Hugging Face hub, such as ``stabilityai/sd-vae-ft-mse``.
        subfolder: The folder of the autoencoder in it. Defaults to the top.
        latent_scale: The scale of the codes. Defaults to that of its config.

    Raises:
        FileNotFoundError: If the folder does not exist.
        OSError: If diffusers is not installed, or the autoencoder cannot be loaded.
        ValueError: If ``latent_scale`` is not positive.
    """

    def __init__(
        self, path: str, subfolder: str | None = None, latent_scale: float | None = None
    ) -> None:
        super().__init__()
        self.path = str(path)
        self.network = _load(self.path, subfolder)
        scale = self.network.config.scaling_factor if latent_scale is None else latent_scale
        if not 0 < scale < math.inf:
            raise ValueError(f"latent_scale must be positive, got {scale}.")
        if self.network.config.get("shift_factor"):
            raise OSError(f"The codes of {path} are shifted, which is not supported.")
        self.latent_scale = float(scale)
        self.requires_grad_(False).eval()

    def extra_repr(self) -> str:
        """Shows where it comes from."""
        return f"path={self.path!r}, latent_scale={self.latent_scale:g}"

    @property
    def reduction(self) -> int:
        """The ratio of the sides of an image and of its code."""
        return 2 ** (len(self.network.config.block_out_channels) - 1)

    def posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mean and standard deviation of the codes of images in [-1, 1], unscaled."""
        found = self.network.encode(images.to(self.network.dtype)).latent_dist
        return found.mean, found.std

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
        codes = latents.to(self.network.dtype) / self.latent_scale
        return self.network.decode(codes).sample.clamp(-1, 1)


def _load(path: str, subfolder: str | None) -> Any:
    try:
        from diffusers import AutoencoderKL
    except ImportError as error:
        raise OSError(
            f"The autoencoder {path} needs the package diffusers: pip install 'afmlib[vae]'"
        ) from error
    is_local = os.path.isdir(path)
    if not is_local and not _is_hub_name(path):
        raise FileNotFoundError(f"The autoencoder {path} does not exist: it is not a folder.")
    options: dict[str, Any] = {} if subfolder is None else dict(subfolder=subfolder)
    try:
        # With low_cpu_mem_usage it would advise to install accelerate.
        return AutoencoderKL.from_pretrained(
            path,
            use_safetensors=True,  # Never a pickle.
            local_files_only=is_local,
            low_cpu_mem_usage=False,
            **options,
        )
    except Exception as error:  # diffusers may raise anything for a wrong file.
        text = " ".join(str(error).split())[:300] or type(error).__name__
        raise OSError(f"No autoencoder could be loaded from {path}: {text}") from error


def _is_hub_name(path: str) -> bool:
    """Returns whether a path is the name of a repository, "owner/name"."""
    parts = path.split("/")
    return len(parts) == 2 and all(parts) and not path.startswith((".", "~"))
