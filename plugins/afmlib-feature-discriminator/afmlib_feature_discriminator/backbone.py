r"""A frozen timm network with feature maps at several depths.

Images in :math:`[-1, 1]` are resized and normalized as in the training of the network. The feature
maps are twice differentiable with respect to the images, since nothing is rounded or clipped.
"""

__all__ = ["FrozenBackbone"]

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from afmlib_feature_discriminator.weights import read_weights


class FrozenBackbone(nn.Module):
    """The feature maps of a backbone.

    Its parameters never require gradients. So they are in no optimizer and in no gradient
    all-reduce, and are not unfrozen with the other parameters. The backbone is always in evaluation
    mode. So its normalization statistics are fixed, and samples are independent.

    Args:
        model: The name of the model in timm.
        weights: The path of its weights; see `read_weights`.
        pretrained: Whether timm downloads its weights instead.
        resolution: The size to which images are resized. Defaults to that of the model.
        layers: The number of its last feature maps to use, or a list of their indices.

    Raises:
        ValueError: If the model is unknown, it has no feature maps, or the weights do not fit.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: str,
        weights: str | None,
        pretrained: bool,
        resolution: int | None,
        layers: int | Sequence[int],
    ) -> None:
        super().__init__()
        self.network = _create(model, weights, pretrained)
        config = self.network.pretrained_cfg
        self.resolution = resolution or int(config["input_size"][-1])
        self.layers = layers if isinstance(layers, int) else list(layers)
        self.register_buffer("mean", torch.tensor(config["mean"]).reshape(3, 1, 1))
        self.register_buffer("std", torch.tensor(config["std"]).reshape(3, 1, 1))
        self.requires_grad_(False)
        super().train(False)

    def train(self, mode: bool = True) -> "FrozenBackbone":
        """Does nothing: a backbone is always in evaluation mode."""
        del mode
        return self

    def widths(self) -> list[int]:
        """Returns the number of channels of each feature map.

        Raises:
            ValueError: If the network cannot process the resolution, or lacks the feature maps.
        """
        with torch.no_grad():
            like = self.mean.new_zeros(1, 3, self.resolution, self.resolution)
            try:
                return [maps.shape[1] for maps in self(like)]
            except (AssertionError, IndexError, RuntimeError) as error:
                raise ValueError(
                    f"{type(self.network).__name__} has no feature maps {self.layers} for images "
                    f"of {self.resolution} pixels: {error}"
                ) from error

    def forward(self, images: Tensor) -> list[Tensor]:
        size = (self.resolution, self.resolution)
        resized = interpolate(images.expand(-1, 3, -1, -1), size, mode="bicubic", antialias=True)
        pixels = ((resized + 1) / 2 - self.mean) / self.std
        return self.network.forward_intermediates(
            pixels, indices=self.layers, output_fmt="NCHW", intermediates_only=True
        )


def _create(model: str, weights: str | None, pretrained: bool) -> Any:
    import timm

    if not timm.is_model(model):
        near = timm.list_models(f"*{model}*")[:5] or timm.list_models("*efficientnet_lite*")
        raise ValueError(f"timm has no model {model!r}. Similar models: {', '.join(near)}.")
    with torch.random.fork_rng(devices=[]):
        network = timm.create_model(model, pretrained=pretrained)
    if not callable(getattr(network, "forward_intermediates", None)):
        raise ValueError(f"The timm model {model!r} does not return intermediate features.")
    if weights is not None:
        state = read_weights(weights, network.state_dict())
        try:
            network.load_state_dict(state, strict=True)
        except RuntimeError as error:
            raise ValueError(f"The weights in {weights} do not fit {model!r}: {error}") from None
    network.reset_classifier(0)
    for module in network.modules():
        if "fused_attn" in vars(module):  # Fused attention has no second derivative.
            module.fused_attn = False
    return network
