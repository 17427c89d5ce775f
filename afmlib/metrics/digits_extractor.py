"""Features of handwritten digits, from a small network that is trained at first use."""

__all__ = ["DigitsExtractor"]

import logging
from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from afmlib.interfaces import FeatureExtractor
from afmlib.io import storage
from afmlib.io.cache import cache_folder
from afmlib.io.checked_tensors import pack, unpack
from afmlib.io.content_hash import content_hash
from afmlib.io.digits_archive import read_digits
from afmlib.metrics.digits_network import RECIPE, digits_network, train_digits_network

MAP_LAYERS = 5
"""Layers up to the last feature map."""

NUM_CHANNELS = 8
"""Channels of it that are compared."""

logger = logging.getLogger("afmlib")


class DigitsExtractor(FeatureExtractor):
    """64 features of 8x8 digits, with a mean variance of one on the training images.

    ``spatial`` are the first 8 channels of the last 4x4 feature map. ``logits`` are those of the
    ten digits.

    The network classifies digits and is trained on the training images, in a few seconds. Its
    weights are cached in the folder ``AFMLIB_CACHE`` (an environment variable), which defaults to
    ``~/.cache/afmlib``. It is trained again if they are missing or corrupt.
    """

    scale: Tensor
    outputs = frozenset({"features", "spatial", "logits"})

    def __init__(self) -> None:
        super().__init__()
        weights = _weights()
        self.name = f"digits-{content_hash(weights)}"
        self.register_buffer("scale", weights.pop("scale"))
        self.network = digits_network()
        self.network.load_state_dict(weights, assign=True)
        self.requires_grad_(False).eval()

    def check_shape(self, shape: Sequence[int]) -> None:
        """Raises if an image is not 8x8 and gray."""
        if tuple(shape) != (1, 8, 8):
            raise ValueError(
                f"DigitsExtractor needs 8x8 gray images, shape (1, 8, 8), got {tuple(shape)}: use "
                "EfficientNetLiteExtractor or InceptionExtractor"
            )

    def forward(self, images: Float[Tensor, " batch channels height width"]) -> Tensor:
        """Returns 64 features per image, which is clipped to [-1, 1].

        Raises:
            ValueError: If the images are not 8x8 and gray.
        """
        return self.extract(images)["features"]

    def extract(self, images: Float[Tensor, " batch channels height width"]) -> dict[str, Tensor]:
        """Returns 64 features, 128 numbers of a feature map and 10 logits per image.

        Raises:
            ValueError: If the images are not 8x8 and gray.
        """
        self.check_shape(images.shape[1:])
        layers: Any = self.network[0]
        maps = layers[:MAP_LAYERS](images.to(self.scale.dtype).clamp(-1, 1))
        features = layers[MAP_LAYERS:](maps)
        return {
            "features": features / self.scale,
            "spatial": maps[:, :NUM_CHANNELS].flatten(1),
            "logits": self.network[1](features),
        }


def _weights() -> dict[str, Tensor]:
    path = _cache_path()
    try:
        return unpack(storage.read_bytes(path))
    except FileNotFoundError:
        logger.info("Training the digits extractor, once: a few seconds.")
    except (OSError, ValueError) as error:
        logger.warning("Training the digits extractor again: %s: %s", path, error)
    weights = train_digits_network()
    try:
        storage.write_atomically(path, pack(weights))
    except OSError as error:
        logger.warning("The digits extractor is not cached: %s", error)
    return weights


def _cache_path() -> str:
    archive = read_digits()
    data = content_hash(
        {"images": archive.images, "labels": archive.labels, "train": archive.train}
    )
    return storage.join(cache_folder(), f"digits-{data}-{RECIPE}.safetensors")
