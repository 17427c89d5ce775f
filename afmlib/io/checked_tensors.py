"""Tensors as bytes with a checksum."""

__all__ = ["pack", "unpack"]

from collections.abc import Mapping

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from afmlib.io.content_hash import content_hash

CHECKSUM = "checksum"


def pack(tensors: Mapping[str, Tensor]) -> bytes:
    """Packs tensors as safetensors, with a checksum.

    Example:
        >>> unpack(pack({"scale": torch.tensor(2.0)}))
        {'scale': tensor(2.)}
    """
    checksum = torch.tensor(list(content_hash(tensors).encode()), dtype=torch.uint8)
    return save({**tensors, CHECKSUM: checksum})


def unpack(content: bytes) -> dict[str, Tensor]:
    """Unpacks tensors.

    Raises:
        ValueError: If the bytes are corrupt.
    """
    try:
        tensors = load(content)
    except SafetensorError as error:
        raise ValueError(f"it is corrupt: {error}") from None
    checksum = bytes(tensors.pop(CHECKSUM, torch.empty(0)).tolist())
    if checksum != content_hash(tensors).encode():
        raise ValueError("it is corrupt")
    return tensors
