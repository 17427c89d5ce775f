"""Official checkpoints: files with the weights of one network, read without running code.

They are plain state dicts, written by ``torch.save`` or as safetensors.
"""

__all__ = ["is_weights_file", "read_official", "read_state_dict", "write_state_dict"]

import argparse
from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from afmlib.io import storage
from afmlib.io.bounds import open_plain_file
from afmlib.io.cache import local_copy
from afmlib.io.checked_files import CheckpointError, read_plain_data, read_tensors
from afmlib.io.official_layout import (
    OFFICIAL_FILES,
    OFFICIAL_REPOSITORY,
    OfficialNetwork,
    recognize,
)

SUFFIXES = (".pth", ".pt", ".safetensors")
ZIP = b"PK\x03\x04"
"""The first bytes of an archive of ``torch.save``."""

LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""The first bytes of a file saved by torch before 1.6: a pickled magic number."""


def is_weights_file(path: str) -> bool:
    """Returns whether a path or URL has the name of a weights file, as opposed to a folder."""
    return str(path).lower().endswith(SUFFIXES)


def read_official(path: str, num_heads: int | None = None) -> OfficialNetwork:
    """Reads an official checkpoint and recognizes its network.

    Args:
        path: The file: a path or a URL. A remote file is cached.
        num_heads: The number of attention heads. Defaults to that of the official network of this
            width.

    Raises:
        CheckpointError: If it is corrupt, holds anything but weights, or fits no official network.
        OSError: If it cannot be read.
    """
    return recognize(read_state_dict(path), num_heads, path)


def read_state_dict(path: str, ema: bool = True) -> dict[str, Tensor]:
    """Reads a state dict of floating-point weights.

    Args:
        path: The file: a path or a URL. A remote file is cached.
        ema: Whether to take the EMA weights of a file that also holds the online weights, as the
            training programs of DiT, SiT and REPA write them.

    Raises:
        CheckpointError: If it is corrupt or holds anything else.
        OSError: If it cannot be read.
    """
    try:
        local = local_copy(path)
    except FileNotFoundError as error:
        if OFFICIAL_REPOSITORY not in path:
            raise
        raise FileNotFoundError(
            f"{path} does not exist. The generators in this repository, in the folder models or "
            f"afm/models, are {', '.join(OFFICIAL_FILES.values())}."
        ) from error
    with open_plain_file(local) as file:
        start = file.read(len(LEGACY))
        file.seek(0)
        if start == LEGACY:
            raise CheckpointError(
                f"{path} is in the old format of torch before 1.6: load it with torch.load and "
                "torch.save it again."
            )
        is_zip = start.startswith(ZIP)
        # The training programs store their options: a plain object, whose class runs no code.
        with torch.serialization.safe_globals([argparse.Namespace]):
            state = read_plain_data(file, path) if is_zip else read_tensors(file, path)
    nested = state.get("ema" if ema else "model")
    if isinstance(nested, dict):
        state = nested
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise CheckpointError(
                f"{path} is not a plain state dict: {str(name)[:80]!r} is a {type(value).__name__}."
            )
        if not value.is_floating_point():
            raise CheckpointError(f"{path} is not an official network: {name} is {value.dtype}.")
    if len({value.dtype for value in state.values()}) > 1:
        raise CheckpointError(f"{path} mixes dtypes, unlike any official network.")
    return state


def write_state_dict(path: str, state: Mapping[str, Tensor]) -> None:
    """Writes a plain state dict by ``torch.save``, as the official code does.

    Raises:
        OSError: If there is no space or no permission. No partial file remains.
    """
    plain = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    storage.write_atomically(path, partial(torch.save, plain))
