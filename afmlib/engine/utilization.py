"""Model FLOPs utilization (MFU): the share of a device's peak that the operations of a step reach.

The floating-point operations of one iteration are counted by torch, matrix products and
convolutions only. The peaks are those of the vendors' data sheets, dense and without sparsity.
"""

__all__ = ["OperationCounter", "peak_of"]

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

PEAKS = {
    "H200": {"bfloat16": 989e12, "tf32": 495e12, "float32": 67e12, "float64": 67e12},
    "H100 PCIe": {"bfloat16": 756e12, "tf32": 378e12, "float32": 51e12, "float64": 51e12},
    "H100": {"bfloat16": 989e12, "tf32": 495e12, "float32": 67e12, "float64": 67e12},
    "H800": {"bfloat16": 989e12, "tf32": 495e12, "float32": 67e12},
    "A100": {"bfloat16": 312e12, "tf32": 156e12, "float32": 19.5e12, "float64": 19.5e12},
    "A800": {"bfloat16": 312e12, "tf32": 156e12, "float32": 19.5e12},
    "L40S": {"bfloat16": 362e12, "tf32": 183e12, "float32": 91.6e12},
    "V100": {"float32": 15.7e12, "float64": 7.8e12},
}
"""Operations per second by a part of the name of a GPU, and by precision. The first match counts.

Its sources are NVIDIA's data sheets of the SXM modules, if the name does not say PCIe.
"""


def peak_of(device: torch.device, precision: str) -> float | None:
    """Returns the peak of a device in operations per second; None if it is not known.

    Args:
        device: The device.
        precision: The precision of a run, such as ``bfloat16``.
    """
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    found = next((peaks for part, peaks in PEAKS.items() if part in name), {})
    return found.get(precision)


class _Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds the operations of each call.

    FlopCounterMode of torch hooks modules, so that `autograd.grad` fails in a forward pass.
    """

    operations = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.operations += count(*args, **kwargs, out_val=result)
        return result


class OperationCounter:
    """Counts the operations of the first iteration. The next ones run as usual."""

    def __init__(self) -> None:
        self.operations: int | None = None
        self._stack = contextlib.ExitStack()
        self._mode: Any = None

    def start(self) -> None:
        """Starts to count, if nothing was counted yet."""
        if self.operations is None:
            mode = _Counting()  # type: ignore[no-untyped-call]
            self._mode = self._stack.enter_context(mode)

    def stop(self) -> None:
        """Ends the count."""
        if self._mode is not None:
            self._stack.close()
            self.operations, self._mode = self._mode.operations, None
