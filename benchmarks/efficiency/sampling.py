"""How fast a model makes samples: one at a time, and many at once."""

__all__ = ["compute_sample", "measure_sample"]

import functools
from typing import Any

import torch

from afmlib import sample
from afmlib.interfaces import SampleModel

from .clock import median_seconds
from .gauge import Gauge
from .memory import MIB, Growth, size_of

MAX_BATCH = 256
ENOUGH = 0.5
"""Seconds that a full batch should take: the larger it were, the longer one would wait."""


def measure_sample(
    model: SampleModel,
    latent_shape: tuple[int, ...],
    nfe: int,
    flops: float,
    gauge: Gauge,
    max_batch: int = MAX_BATCH,
    dtype: torch.dtype | None = None,
) -> dict[str, Any]:
    """Measures the latency of a single sample and the throughput of a batch.

    Args:
        model: What makes them.
        latent_shape: The shape of one.
        nfe: Network evaluations per sample.
        flops: Operations per sample.
        gauge: What the device does; it is told what was seen.
        max_batch: The most that fits into memory.
        dtype: Of the autocast; that of the weights if None.
    """
    expected = gauge.seconds(flops)
    weights = size_of([*model.parameters(), *model.buffers()])
    if expected > gauge.patience:
        return compute_sample(flops, weights, gauge, f"one sample would take {expected:.0f} s")
    growth = Growth(gauge.device)
    run = functools.partial(_seconds, model, latent_shape, nfe, gauge.device, dtype)
    latency = seconds = run(1)
    share, batch = gauge.see(flops, latency), 1
    limit = min(max_batch, MAX_BATCH, ENOUGH / gauge.seconds(flops))
    if limit >= 2:
        batch = 2 ** (int(limit).bit_length() - 1)
        seconds = run(batch)
        share = gauge.see(batch * flops, seconds)
    return {
        "latency_ms": 1e3 * latency,
        "images_per_second": batch / seconds,
        "peak_memory_mib": (weights + growth.bytes()) / MIB,
        "share_of_peak": share,
        "batch": batch,
        "computed": False,
        "reason": None,
    }


def compute_sample(flops: float, weights: int, gauge: Gauge, why: str) -> dict[str, Any]:
    """Computes the same from the operations of a sample."""
    seconds = gauge.seconds(flops)
    return {
        "latency_ms": 1e3 * seconds,
        "images_per_second": 1 / seconds,
        "peak_memory_mib": weights / MIB,
        "share_of_peak": gauge.share,
        "batch": 1,
        "computed": True,
        "reason": f"{why}; {gauge.words}",
    }


def _seconds(
    model: SampleModel,
    latent_shape: tuple[int, ...],
    nfe: int,
    device: torch.device,
    dtype: torch.dtype | None,
    batch: int,
) -> float:
    noises = torch.randn(batch, *latent_shape)
    labels = torch.arange(batch) % (model.conventions.num_classes or 1)
    return median_seconds(
        lambda: sample(model, labels, nfe, noises=noises, batch_size=batch, dtype=dtype), device
    )
