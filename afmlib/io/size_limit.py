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
from torch.overrides import TorchFunctionMode

Network = TypeVar("Network", bound=nn.Module)

SPARE_ELEMENTS, SPARE_ENTRIES = 2**20, 1000  # Buffers that are not stored, containers, ...

IN_PLACE = frozenset(
    getattr(Tensor, f"{name}_")
    for name in ("normal", "uniform", "bernoulli", "fill", "zero", "erfinv", "mul", "add", "clamp")
)
"""The functions that initialize parameters."""


def build_for(weights: Mapping[str, Tensor], build: Callable[[], Network]) -> Network:
    """Builds a network for given weights.

    It is first built on the meta device, if its constructor allows it.

    Raises:
        ValueError: If it is far larger than the weights.
    """
    # Constructors that read values of tensors cannot run on the meta device.
    meta = torch.device("meta")
    with contextlib.suppress(RuntimeError), _limited(weights), meta, _Uninitialized():
        build()
    with _limited(weights):
        return build()


class _Uninitialized(TorchFunctionMode):
    """Leaves out the initial values, for which torch would import its compiler: a second."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        first = args[0] if args else kwargs.get("tensor")
        is_initializer = func in IN_PLACE or getattr(func, "__module__", "") == nn.init.__name__
        if is_initializer and isinstance(first, Tensor) and first.is_meta:
            return first
        return func(*args, **kwargs)


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
