"""The most that a device does: floating-point operations per second in a product of matrices."""

__all__ = ["matmul_peak"]

import torch

from .clock import median_seconds

SIZES = {"cpu": (512, 1024, 2048), "cuda": (4096, 8192)}
"""Rows and columns of the matrices: the best of them counts."""


def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Returns the operations per second, with the threads and settings of this process."""
    return max(_speed(size, device, dtype) for size in SIZES[device.type])


def _speed(size: int, device: torch.device, dtype: torch.dtype) -> float:
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    product = torch.empty_like(left)
    with torch.no_grad():
        return 2 * size**3 / median_seconds(lambda: torch.mm(left, right, out=product), device)
