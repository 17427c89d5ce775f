"""Weights of small networks that are trained at first use, and then cached.

An extractor or an autoencoder of a data set has no weights to download. It is trained once, always
in the same way, by one thread and random numbers of its own. The name of its weights contains a
hash of everything that they depend on: the data, the settings and the recipe. A few weights are in
the package, so that these networks are the same on every machine.
"""

__all__ = ["hash_of", "one_thread", "trained_weights"]

import hashlib
import importlib.resources
import json
import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from afmlib import processes
from afmlib.io import storage
from afmlib.io.cache import cache_folder
from afmlib.io.checked_tensors import pack, unpack
from afmlib.io.content_hash import content_hash

SHIPPED = Path(str(importlib.resources.files("afmlib"))) / "zoo" / "trained"
"""The folder of the weights that are in the package."""

FIRST_STEPS = 20
"""Steps after which the duration is known."""

logger = logging.getLogger("afmlib")


def hash_of(images: Tensor, settings: Mapping[str, Any]) -> str:
    """Returns a hash of training images and plain settings."""
    text = json.dumps(dict(settings), sort_keys=True)
    both = f"{content_hash({'images': images})} {text}"
    return hashlib.sha256(both.encode()).hexdigest()[:16]


def trained_weights(
    name: str, what: str, train: Callable[[Callable[[int], Iterable[int]]], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """Returns the weights of a name: from the package, from the cache, or trained now.

    With several processes, the first one trains before the others read the cache.

    Args:
        name: The name of the file without its ending, with a hash of everything that the weights
            depend on.
        what: The network, for messages, such as "a small autoencoder on 300 images".
        train: Trains the network. Its argument yields the indices of a number of steps, and shows
            the progress. It runs with one thread and gradients.
    """
    weights = _find_or_train(name, what, train) if processes.rank() == 0 else None
    processes.from_first(None)  # The others wait.
    return _find_or_train(name, what, train) if weights is None else weights


def _find_or_train(
    name: str, what: str, train: Callable[[Callable[[int], Iterable[int]]], dict[str, Tensor]]
) -> dict[str, Tensor]:
    shipped = SHIPPED / f"{name}.safetensors"
    if shipped.is_file():
        return unpack(shipped.read_bytes())
    path = storage.join(cache_folder(), f"{name}.safetensors")
    try:
        return unpack(storage.read_bytes(path))
    except FileNotFoundError:
        logger.info("Training %s, once. Its weights are cached in %s.", what, cache_folder())
    except (OSError, ValueError) as error:
        logger.warning("Training %s again: %s: %s", what, path, error)
    with torch.inference_mode(False), torch.enable_grad(), one_thread():
        weights = train(lambda count: _show_steps(count, what))
    try:
        storage.write_atomically(path, pack(weights))
    except OSError as error:
        logger.warning("The weights of %s are not cached: %s", what, error)
    return weights


@contextmanager
def one_thread() -> Iterator[None]:
    """Computes with one thread, so that sums have the same order on every machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _show_steps(count: int, what: str) -> Iterator[int]:
    """Yields steps, with a progress bar on a terminal, and else one message."""
    from rich import progress as bars
    from rich.console import Console

    console = Console(stderr=True)
    if sys.stderr.isatty():
        yield from bars.track(range(count), f"Training {what}", console=console, transient=True)
        return
    start = time.monotonic()
    for step in range(count):
        if step == FIRST_STEPS:
            minutes = (time.monotonic() - start) / FIRST_STEPS * count / 60
            logger.info("Training %s takes about %.1f minutes.", what, minutes)
        yield step
