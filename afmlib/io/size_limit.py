"""A limit on the size of a network that is built for stored weights.

A manifest may ask for a width of :math:`10^9`, so its sizes cannot be trusted. A network that fits
the stored weights registers about as many parameters. Building stops if it registers far more.
"""

__all__ = ["build_for"]

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks

Network = TypeVar("Network", bound=nn.Module)

SPARE_ELEMENTS, SPARE_ENTRIES = 2**20, 1000  # Buffers that are not stored, containers, ...


def build_for(weights: Mapping[str, Tensor], build: Callable[[], Network]) -> Network:
    """Builds a network for given weights.

    It is first built on the meta device, if its constructor allows it.

    Raises:
        ValueError: If it is far larger than the weights.
    """
    # Constructors that read values of tensors cannot run on the meta device.
    with contextlib.suppress(RuntimeError), _limited(weights), torch.device("meta"):
        build()
    with _limited(weights):
        return build()


@contextlib.contextmanager
def _limited(weights: Mapping[str, Tensor]) -> Iterator[None]:
    elements = 2 * sum(tensor.numel() for tensor in weights.values()) + SPARE_ELEMENTS
    entries = 10 * len(weights) + SPARE_ENTRIES
    thread = threading.get_ident()

    def register(owner: nn.Module, name: str, entry: Any) -> None:
        nonlocal elements, entries
        if threading.get_ident() != thread:  # The hooks are global.
            return
        entries -= 1
        elements -= entry.numel() if isinstance(entry, Tensor) else 0
        if elements < 0 or entries < 0:
            raise ValueError("it describes a network far larger than its weights")

    with contextlib.ExitStack() as stack:
        for add in (
            hooks.register_module_parameter_registration_hook,
            hooks.register_module_buffer_registration_hook,
            hooks.register_module_module_registration_hook,
        ):
            stack.callback(add(register).remove)
        yield
