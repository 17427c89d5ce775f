"""Reads the weights of a backbone from a file without running code."""

__all__ = ["read_weights"]

import pickle
from collections.abc import Iterable

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

LITE_STEM = "_conv_stem.weight"
"""An entry in the weights of ``efficientnet_lite_pytorch`` that timm does not have."""


def read_weights(path: str, names: Iterable[str]) -> dict[str, Tensor]:
    """Reads the weights of a backbone.

    Args:
        path: A safetensors file, or a file of ``torch.save`` with only tensors.
        names: The names of the backbone's entries, in order, for a file with other names.

    Raises:
        ValueError: If the file is corrupt or holds anything else.
        OSError: If it cannot be read.
    """
    try:
        if path.endswith(".safetensors"):
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"{path} is corrupt or holds more than tensors: {error}") from None
    state = state.get("state_dict", state) if isinstance(state, dict) else None
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path} is not a state dict of tensors.")
    if LITE_STEM in state:  # The same entries in the same order, with other names.
        return dict(zip(names, state.values(), strict=False))
    return state
