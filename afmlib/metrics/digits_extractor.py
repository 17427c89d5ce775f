"""Features of handwritten digits, from a small network that is trained on first use."""

__all__ = ["DigitsExtractor"]

import logging
from typing import Any

from jaxtyping import Float
from torch import Tensor

from afmlib.interfaces import FeatureExtractor
from afmlib.io import storage
from afmlib.io.cache import cache_folder
from afmlib.io.digits_archive import read_digits
from afmlib.metrics.checked_tensors import pack, unpack
from afmlib.metrics.content_hash import content_hash
from afmlib.metrics.digits_network import RECIPE, digits_network, train_digits_network

MAP_LAYERS = 5
"""Layers up to the last feature map."""

NUM_CHANNELS = 8
"""Channels of it that are compared."""

logger = logging.getLogger("afmlib")


class DigitsExtractor(FeatureExtractor):
    """64 features of 8x8 digits, with a mean variance of one on the training images.

    ``spatial`` are the first 8 channels of its last feature map, of 4x4, and ``logits`` those of
    the ten digits.

    The network behind them classifies digits and was trained on the training images. Its weights
    are kept in the folder that the environment variable ``AFMLIB_CACHE`` names, else in
    ``~/.cache/afmlib``, and are made anew, in a few seconds, where they are missing or damaged.
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

    def forward(self, images: Float[Tensor, " batch channels height width"]) -> Tensor:
        """Returns 64 features per image; what is outside of [-1, 1] is clipped.

        Raises:
            ValueError: If the images are not 8x8 and gray.
        """
        return self.extract(images)["features"]

    def extract(self, images: Float[Tensor, " batch channels height width"]) -> dict[str, Tensor]:
        """Returns 64 features, 128 numbers of a feature map and 10 logits per image.

        Raises:
            ValueError: If the images are not 8x8 and gray.
        """
        if images.shape[1:] != (1, 8, 8):
            raise ValueError(f"Digits have shape (1, 8, 8), not {tuple(images.shape[1:])}.")
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
        logger.warning("Training the digits extractor again, because of %s: %s.", path, error)
    weights = train_digits_network()
    try:
        storage.write_atomically(path, pack(weights))
    except OSError as error:
        logger.warning("The digits extractor is not kept: %s", error)
    return weights


def _cache_path() -> str:
    archive = read_digits()
    data = content_hash(
        {"images": archive.images, "labels": archive.labels, "train": archive.train}
    )
    return storage.join(cache_folder(), f"digits-{data}-{RECIPE}.safetensors")
