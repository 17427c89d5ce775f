"""Tensors as bytes that know whether they are whole."""

__all__ = ["pack", "unpack"]

from collections.abc import Mapping

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from afmlib.metrics.content_hash import content_hash

CHECKSUM = "checksum"


def pack(tensors: Mapping[str, Tensor]) -> bytes:
    """Returns tensors in safetensors, with a checksum among them.

    Example:
        >>> unpack(pack({"scale": torch.tensor(2.0)}))
        {'scale': tensor(2.)}
    """
    checksum = torch.tensor(list(content_hash(tensors).encode()), dtype=torch.uint8)
    return save({**tensors, CHECKSUM: checksum})


def unpack(content: bytes) -> dict[str, Tensor]:
    """Returns the tensors that were packed.

    Raises:
        ValueError: If the bytes are damaged.
    """
    try:
        tensors = load(content)
    except SafetensorError as error:
        raise ValueError(f"it is damaged: {error}") from None
    checksum = bytes(tensors.pop(CHECKSUM, torch.empty(0)).tolist())
    if checksum != content_hash(tensors).encode():
        raise ValueError("it is damaged")
    return tensors
