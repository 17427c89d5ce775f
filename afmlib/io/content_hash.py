"""A hash of the content of weights."""

__all__ = ["content_hash"]

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor


def content_hash(tensors: Mapping[str, Tensor], length: int = 16) -> str:
    """Returns the start of the SHA-256 of tensors: names, dtypes, shapes and values.

    Example:
        >>> content_hash({"weight": torch.zeros(3)})
        '25915bba60853219'
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:length]
