"""Models of timm, and their weights from files that hold tensors only."""

__all__ = ["create_model", "load_weights"]

import io
import pickle
from collections.abc import Mapping
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor

from afmlib.io import storage


def create_model(model: str, pretrained: bool = False) -> Any:
    """Creates a model without using the global random state.

    Raises:
        ValueError: If timm has no model of this name.
        OSError: If its weights cannot be downloaded.
    """
    import timm

    if not timm.is_model(model):
        near = timm.list_models(f"*{model}*")[:5] or timm.list_models("*efficientnet_lite*")
        raise ValueError(f"timm has no model {model!r}. It has {', '.join(near)}, among others.")
    try:
        with torch.random.fork_rng(devices=[]):
            return timm.create_model(model, pretrained=pretrained)
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise
        raise FileNotFoundError(
            f"the weights of {model} cannot be downloaded ({error}): set weights to their path "
            "instead of pretrained."
        ) from error


def load_weights(network: Any, path: str) -> bool:
    """Loads weights, and returns whether they have a classifier. Otherwise it is removed.

    Args:
        network: The model.
        path: The file: safetensors, or a torch file with tensors only, with the names of timm or
            of ``efficientnet_lite_pytorch``.

    Raises:
        ValueError: If the weights are corrupt or do not fit the model.
        OSError: If they cannot be read.
    """
    config: Mapping[str, Any] = network.pretrained_cfg
    state = _read(path)
    if "_conv_stem.weight" in state:  # efficientnet_lite_pytorch: other names, same order.
        state = dict(zip(network.state_dict(), state.values(), strict=False))
    classifiers = config.get("classifier") or ()
    classifiers = (classifiers,) if isinstance(classifiers, str) else tuple(classifiers)
    beginnings = tuple(f"{classifier}." for classifier in classifiers)
    own = {
        n: tensor.shape for n, tensor in network.state_dict().items() if n.startswith(beginnings)
    }
    has_classifier = bool(own) and own == {n: state[n].shape for n in own if n in state}
    if not has_classifier:  # Missing, or for other classes: the features do not change.
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
        raise ValueError(f"{path} is corrupt, or does not hold tensors only: {error}") from None
    state = state.get("state_dict", state) if isinstance(state, dict) else None
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path} does not hold a state dict.")
    return state
