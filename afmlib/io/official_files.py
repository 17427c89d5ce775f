"""Files that hold the weights of one network, as they are published: read, never run.

They are what ``torch.save`` makes of a plain state dict, or safetensors.
"""

__all__ = ["is_weights_file", "read_published", "read_state_dict", "write_state_dict"]

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from afmlib.io import storage
from afmlib.io.cache import local_copy
from afmlib.io.checked_files import CheckpointError, read_plain_data, read_tensors
from afmlib.io.official_layout import PublishedNetwork, recognize

SUFFIXES = (".pth", ".pt", ".safetensors")
ZIP = b"PK\x03\x04"
"""How an archive of ``torch.save`` begins."""

LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""How a file begins that was saved by torch before 1.6: its magic number, pickled."""


def is_weights_file(path: str) -> bool:
    """Tells by its name whether a path or URL is a file of weights, as opposed to a folder."""
    return str(path).lower().endswith(SUFFIXES)


def read_published(path: str, num_heads: int | None = None) -> PublishedNetwork:
    """Reads a file in the published layout and recognizes the network.

    Args:
        path: The file: a path or a URL, of which a copy is kept.
        num_heads: The number of attention heads; that of the published network of this width
            unless given.

    Raises:
        CheckpointError: If it is damaged, holds anything but weights, or fits no such network.
        OSError: If it cannot be read.
    """
    return recognize(read_state_dict(path), num_heads, path)


def read_state_dict(path: str) -> dict[str, Tensor]:
    """Reads a file of floating-point weights, by name.

    Raises:
        CheckpointError: If it is damaged, or holds anything else.
        OSError: If it cannot be read.
    """
    with open(local_copy(path), "rb") as file:
        start = file.read(len(LEGACY))
        file.seek(0)
        if start == LEGACY:
            raise CheckpointError(
                f"{path} is in torch's older format, which is no zip archive: open it with a "
                "recent torch, and torch.save it again."
            )
        is_zip = start.startswith(ZIP)
        state = read_plain_data(file, path) if is_zip else read_tensors(file, path)
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise CheckpointError(
                f"{path} holds no plain state dict: {str(name)[:80]!r} is a {type(value).__name__}."
            )
        if not value.is_floating_point():
            raise CheckpointError(f"{path} is no published network: {name} is {value.dtype}.")
    if len({value.dtype for value in state.values()}) > 1:
        raise CheckpointError(f"{path} mixes precisions, which no published network does.")
    return state


def write_state_dict(path: str, state: Mapping[str, Tensor]) -> None:
    """Writes a plain state dict as the public code does, by ``torch.save``.

    Raises:
        OSError: If there is no space or no permission; nothing is left behind.
    """
    plain = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    storage.write_atomically(path, partial(torch.save, plain))
