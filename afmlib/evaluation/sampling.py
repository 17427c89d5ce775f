"""Samples made by all processes together: the same that one would make."""

__all__ = ["sample_together"]

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from afmlib import processes
from afmlib.interfaces import Objective, SampleModel
from afmlib.sampling import DEFAULT_BATCH_SIZE, sample, track
from afmlib.typing import Labels


def sample_together(
    model: SampleModel | Objective,
    labels: Labels | Sequence[int],
    batch_size: int | None = None,
    progress: bool = False,
    indices: Sequence[int] | None = None,
    finish: Callable[[Tensor], Tensor] | None = None,
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
        indices: Which samples of the seed are made, one index per label; the first ones unless
            given.
        finish: What is done to a batch of samples in the process that made it, such as decoding.
        options: What :func:`afmlib.sample` takes besides.

    Returns:
        The samples in the first process; None in the others.
    """
    finish = finish or (lambda samples: samples)
    labels = torch.as_tensor(labels)
    names = torch.arange(len(labels)) if indices is None else torch.as_tensor(indices)
    if processes.size() == 1:
        options |= dict(batch_size=batch_size, progress=progress, indices=names.tolist())
        return finish(sample(model, labels, **options))
    size = batch_size or DEFAULT_BATCH_SIZE
    made = []
    rounds = range(0, len(labels), processes.size() * size)
    for start in track(rounds, progress and processes.rank() == 0):
        first = start + processes.rank() * size
        rows = torch.arange(first if first < len(labels) else 0, len(labels))[:size]
        part = finish(
            sample(model, labels[rows], indices=names[rows].tolist(), batch_size=size, **options)
        )
        padded = part.new_zeros(size, *part.shape[1:])
        padded[: len(part)] = part
        gathered = processes.gather_rows(padded)
        if gathered is not None:
            made += gathered
    return torch.cat(made)[: len(labels)] if made else None
