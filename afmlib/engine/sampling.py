"""Samples made by all processes together: the same that one would make."""

__all__ = ["sample_together"]

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from afmlib.interfaces import Objective
from afmlib.ops import processes
from afmlib.sampling import DEFAULT_BATCH_SIZE, SampleModel, sample, track
from afmlib.typing import Labels


def sample_together(
    model: SampleModel | Objective,
    labels: Labels | Sequence[int],
    batch_size: int | None = None,
    progress: bool = False,
    **options: Any,
) -> Tensor | None:
    """Makes one sample per label, batch by batch in turns among the processes.

    The batches are those of one process, so that the samples are, too. All processes run the
    networks as often: the last round is filled up with the first batch, which is thrown away.

    Args:
        model: A loaded model, or an objective.
        labels: The classes.
        batch_size: How many samples are made at once.
        progress: Whether to show a progress bar.
        options: What :func:`afmlib.sample` takes besides.

    Returns:
        The samples in the first process; None in the others.
    """
    if processes.size() == 1:
        return sample(model, labels, batch_size=batch_size, progress=progress, **options)
    labels = torch.as_tensor(labels)
    size = batch_size or DEFAULT_BATCH_SIZE
    made = []
    rounds = range(0, len(labels), processes.size() * size)
    for start in track(rounds, progress and processes.rank() == 0):
        first = start + processes.rank() * size
        rows = torch.arange(first if first < len(labels) else 0, len(labels))[:size]
        part = sample(model, labels[rows], indices=rows.tolist(), batch_size=size, **options)
        padded = part.new_zeros(size, *part.shape[1:])
        padded[: len(part)] = part
        gathered = processes.gather_rows(padded)
        if gathered is not None:
            made += gathered
    return torch.cat(made)[: len(labels)] if made else None
