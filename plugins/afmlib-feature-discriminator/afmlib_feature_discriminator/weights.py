"""Weights of a backbone out of a file: tensors are read, and nothing in the file is run."""

__all__ = ["read_weights"]

import pickle
from collections.abc import Iterable

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

LITE_STEM = "_conv_stem.weight"
"""An entry that ``efficientnet_lite_pytorch`` has, and timm has not."""


def read_weights(path: str, names: Iterable[str]) -> dict[str, Tensor]:
    """Reads the weights of a backbone.

    Args:
        path: A file of safetensors, or one that ``torch.save`` made of tensors alone.
        names: The names of the backbone's entries in their order, for a file that has others.

    Raises:
        ValueError: If the file is damaged or holds anything else.
        OSError: If it cannot be read.
    """
    try:
        if path.endswith(".safetensors"):
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"{path} is damaged, or holds more than tensors: {error}") from None
    state = state.get("state_dict", state) if isinstance(state, dict) else None
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path} holds no weights by name.")
    if LITE_STEM in state:  # Another name for each entry, in the same order.
        return dict(zip(names, state.values(), strict=False))
    return state
