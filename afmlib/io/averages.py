r"""EMAs of a checkpoint: stored ones, and combinations of them for other decays.

An EMA is a mean of the weights :math:`\theta_k` after each update :math:`k`, with shares
:math:`p_k(d)` that depend only on the decay :math:`d`. A combination of stored EMAs is also such a
mean. A decay that was not stored gets the combination with the nearest shares in the least-squares
sense, among those that sum to one.

References:
    | Analyzing and Improving the Training Dynamics of Diffusion Models (Karras et al., 2023),
      Sec. 3.2, for the idea, with another averaging profile and snapshots at several times
    | https://arxiv.org/abs/2312.02696
"""

__all__ = ["average_of", "load_average", "stored_decays"]

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from afmlib.io.checkpoint import CheckpointError, load_tensors, read_manifest, stored_networks

Shares: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]

MAX_ERROR = 0.1
"""The largest relative error of the shares. Three decays with gaps of a factor of 3 in 1 - d have
at most 0.09 between them, with a warm-up or after 8 / (1 - d) updates. Before, the share of the
initial weights is a large part of the shares."""

MAX_WEIGHT = 100.0
"""The largest weight of a stored EMA, whose rounding is multiplied by it."""

MAX_UPDATES = 10**7
"""Bounds the memory. At a decay of 0.99999, earlier weights have no share left."""


def shares(decay: float, updates: int, warmup: bool = False) -> Shares:
    """Returns the shares of the initial weights and of those after each update in an EMA.

    Before the last `MAX_UPDATES`, all count as initial.

    Args:
        decay: The decay.
        updates: The number of updates.
        warmup: Whether the decay of update k is at most (1 + k) / (10 + k).
    """
    k = np.arange(max(updates - MAX_UPDATES, 0) + 1.0, updates + 1)
    decays = np.minimum(decay, (1 + k) / (10 + k)) if warmup else np.full(len(k), decay)
    later = np.cumprod(np.append(1.0, decays[::-1]))[::-1]  # What later updates leave.
    return later * np.append(1.0, 1 - decays)


def weights_for(
    decay: float, stored: Sequence[float], updates: int, warmup: bool = False
) -> tuple[list[float], float]:
    """Returns the weights of stored EMAs in another one, and the relative error of its shares.

    The weights sum to one. The error is zero for a stored decay.

    Args:
        decay: The decay of the other one.
        stored: The stored decays.
        updates: The number of updates.
        warmup: Whether the EMAs have a warm-up.
    """
    target = shares(decay, updates, warmup)
    each = np.stack([shares(one, updates, warmup) for one in stored], axis=1)
    first, differences = each[:, 0], each[:, 1:] - each[:, :1]
    found = np.linalg.lstsq(differences, target - first, rcond=None)[0]
    rest = target - first - differences @ found
    error = float(np.linalg.norm(rest) / np.linalg.norm(target))
    return [1 - float(found.sum()), *found.tolist()], error


def combined(
    networks: Sequence[Mapping[str, Tensor]], weights: Sequence[float]
) -> dict[str, Tensor]:
    """Returns the combination of state dicts. Tensors that are equal in all of them stay."""
    made = {}
    for name, first in networks[0].items():
        tensors = [network[name] for network in networks]
        if not all(torch.equal(first, tensor) for tensor in tensors[1:]):
            wide = torch.stack([tensor.double() for tensor in tensors], dim=-1)
            first = (wide @ torch.tensor(weights, dtype=torch.float64)).to(first)
        made[name] = first
    return made


def stored_decays(folder: str) -> dict[float, str]:
    """Returns the name of the EMA of each decay that a checkpoint stores.

    The EMA that is sampled comes first. Checkpoints of older versions and exports name no decays.

    Raises:
        CheckpointError: If it is missing or corrupt.
    """
    manifest = read_manifest(folder)
    decays = manifest.get("averages", {}).get("decays", {})
    stored = stored_networks(manifest)
    return {decay: name for name, decay in decays.items() if name in stored}


def average_of(folder: str, decay: float) -> dict[str, float]:
    """Returns the names and weights of the stored EMAs that combine to an EMA of any decay.

    Raises:
        CheckpointError: If it cannot be made, or the checkpoint is missing or corrupt.
        ValueError: If the decay is not in [0, 1).
    """
    if not 0 <= decay < 1:
        raise ValueError(f"The decay of an EMA is in [0, 1), got {decay}.")
    stored = stored_decays(folder)
    if decay in stored:
        return {stored[decay]: 1.0}
    problem = "and stores no decays"
    if stored:
        averages = read_manifest(folder)["averages"]
        if averages["updates"] is None:
            raise CheckpointError(
                f"{folder} has no EMA of decay {decay}, and none can be made after phases. It has "
                f"{_listed(stored)}."
            )
        weights, error = weights_for(decay, list(stored), averages["updates"], averages["warmup"])
        largest = max(map(abs, weights))
        if error <= MAX_ERROR and largest <= MAX_WEIGHT:
            return dict(zip(stored.values(), weights, strict=True))
        problem = (
            f"and the nearest combination of {_listed(stored)} is {error:.0%} off (at "
            f"most {MAX_ERROR:.0%} is allowed)"
        )
        if error <= MAX_ERROR:
            problem = (
                f"and {_listed(stored)} are too near to one another: their weights would be up to "
                f"{largest:.2g}"
            )
    raise CheckpointError(
        f"{folder} has no EMA of decay {decay}, {problem}: set ema.decays of its run."
    )


def load_average(folder: str, decay: float) -> dict[str, Tensor]:
    """Returns the weights of the EMA of a decay.

    Raises:
        CheckpointError: If it cannot be made, or the checkpoint is missing or corrupt.
        ValueError: If the decay is not in [0, 1).
    """
    weights = average_of(folder, decay)
    return combined([load_tensors(folder, name) for name in weights], list(weights.values()))


def _listed(decays: Iterable[float]) -> str:
    return ", ".join(map(str, decays))
