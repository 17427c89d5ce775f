"""Features of latents: those of the images that they decode to."""

__all__ = ["DecodedExtractor"]

from collections.abc import Sequence

import torch
from torch import Tensor

from afmlib.interfaces import Autoencoder, Dataset, FeatureExtractor
from afmlib.io.content_hash import content_hash
from afmlib.typing import Latents


class DecodedExtractor(FeatureExtractor):
    """Decodes latents to images, and extracts the features of the images.

    It is for objectives that compare features, such as `FeatureTransport`, on latents. Evaluations
    decode samples themselves. It has a gradient if the extractor has one.

    Args:
        autoencoder: The autoencoder of the latents.
        extractor: The extractor of images.
        images: The images that the autoencoder learns from, if it is not pretrained: those of the
            data of the run.

    Raises:
        ValueError: If the autoencoder is not trained, or the parts do not fit one another.
    """

    def __init__(
        self, autoencoder: Autoencoder, extractor: FeatureExtractor, images: Dataset | None = None
    ) -> None:
        super().__init__()
        if images is not None:
            autoencoder.fit(images)
        elif autoencoder.spec is not None:
            raise ValueError(
                f"{type(autoencoder).__name__} learns from images: set images to those of the data."
            )
        self.autoencoder = autoencoder
        self.extractor = extractor
        self.outputs = extractor.outputs
        self.name = f"{extractor.name}-decoded-{content_hash(autoencoder.state_dict())}"
        self.requires_grad_(False).eval()

    def check_shape(self, shape: Sequence[int]) -> None:
        """Raises if the autoencoder cannot decode this shape, or its images do not fit."""
        like = next(self.autoencoder.parameters(), torch.empty(0))
        try:
            with torch.no_grad():
                images = self.autoencoder.decode(torch.zeros(1, *shape).to(like))
                encoded = tuple(self.autoencoder.encode(images).shape[1:])
        except RuntimeError as error:
            raise ValueError(
                f"this {type(self.autoencoder).__name__} cannot decode latents of shape "
                f"{tuple(shape)}: {str(error).splitlines()[0]}"
            ) from error
        if encoded != tuple(shape):
            raise ValueError(
                f"this {type(self.autoencoder).__name__} is for latents of shape {encoded}, got "
                f"{tuple(shape)}"
            )
        self.extractor.check_shape(images.shape[1:])

    def forward(self, images: Latents) -> Tensor:
        """Returns the features of the decoded images, one row for each latent."""
        return self.extractor(self.autoencoder.decode(images))

    def extract(self, images: Latents) -> dict[str, Tensor]:
        """Returns each of `outputs`, one row for each latent."""
        return self.extractor.extract(self.autoencoder.decode(images))
