"""Records of draws: which rows of them a part of a batch takes, and where they are."""

__all__ = ["take_rows", "to_device"]

import dataclasses

import torch
from torch import Tensor

from afmlib.interfaces import Draws


def take_rows(draws: Draws, start: int, step: int) -> Draws:
    """Returns the rows ``start``, ``start + step``, ... of each tensor of a record of draws.

    Raises:
        ValueError: If the rows of one do not divide by the step.
    """
    taken = {}
    for field in dataclasses.fields(draws):
        tensor = getattr(draws, field.name)
        if isinstance(tensor, Tensor):
            if len(tensor) % step:
                raise ValueError(f"the {len(tensor)} rows of {field.name} do not divide by {step}")
            taken[field.name] = tensor[start::step]
    return dataclasses.replace(draws, **taken)


def to_device(draws: Draws, device: torch.device) -> Draws:
    """Returns a record of draws with its tensors on a device."""
    tensors = {
        field.name: getattr(draws, field.name).to(device, non_blocking=True)
        for field in dataclasses.fields(draws)
        if isinstance(getattr(draws, field.name), Tensor)
    }
    return dataclasses.replace(draws, **tensors)
