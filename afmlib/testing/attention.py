"""The check of attention backends: correct results and working capabilities."""

__all__ = ["CAPABILITIES", "check_attention_backend"]

import warnings
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from afmlib.interfaces import AttentionBackend
from afmlib.testing.contract import promise, require, require_close, require_instance, stream

SHAPE = (2, 3, 5, 8)
"""Samples, heads, tokens, width."""

TOLERANCES = {torch.float64: 1e-6, torch.float32: 1e-4}
"""Tolerances for fused kernels. A backend may compute float64 with a float32 kernel."""


def check_attention_backend(
    backend: AttentionBackend, device: torch.device | str | None = None
) -> None:
    """Checks an attention backend.

    Its value and gradient must equal plain softmax attention. All declared ``capabilities`` must
    work. If it does not run on the device, only the names of the capabilities are checked.

    Args:
        backend: The backend.
        device: The device. Defaults to CUDA if the backend is available there, else the CPU.

    Raises:
        AssertionError: If it breaks its contract. The message names the class and the contract.
    """
    require_instance(backend, AttentionBackend)
    unknown = sorted(set(backend.capabilities) - set(CAPABILITIES))
    known = f"capabilities are out of {', '.join(CAPABILITIES)}"
    require(not unknown, backend, known, f"it declares {', '.join(unknown)}")
    device = _device(backend) if device is None else torch.device(device)
    available = backend.is_available(device)
    require(isinstance(available, bool), backend, "is_available returns True or False")
    if not available:
        return
    for dtype, tolerance in TOLERANCES.items():
        _check_value_and_gradient(backend, device, dtype, tolerance)
    for name in sorted(backend.capabilities):
        CAPABILITIES[name](backend, device)


def _device(backend: AttentionBackend) -> torch.device:
    cuda = torch.device("cuda")
    return cuda if torch.cuda.is_available() and backend.is_available(cuda) else torch.device("cpu")


def _plain(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    scores = queries @ keys.transpose(-2, -1) / queries.shape[-1] ** 0.5
    weights = (scores - scores.amax(-1, keepdim=True)).exp()
    return weights @ values / weights.sum(-1, keepdim=True)


def _inputs(device: torch.device, dtype: torch.dtype) -> list[Tensor]:
    numbers = torch.randn(3, *SHAPE, generator=stream(0))
    return [x.to(device, dtype).requires_grad_() for x in numbers.unbind()]


def _check_value_and_gradient(
    backend: AttentionBackend, device: torch.device, dtype: torch.dtype, tolerance: float
) -> None:
    inputs = _inputs(device, dtype)
    expected = _plain(*inputs)
    contract = f"attention is softmax(Q K' / sqrt(d)) V, in {dtype}"
    with promise(backend, contract):
        made = backend.attend(*inputs)
    require(made.dtype == dtype, backend, f"{contract}, and keeps that dtype")
    require_close(made, expected, backend, contract, tolerance)
    contract = "the gradient of attention is that of softmax(Q K' / sqrt(d)) V"
    with promise(backend, contract):
        gradients = torch.autograd.grad(made.square().sum(), inputs)
    exact = torch.autograd.grad(expected.square().sum(), inputs)
    for gradient, right in zip(gradients, exact, strict=True):
        require_close(gradient, right, backend, contract, 10 * tolerance)
    contract = "attention of one query is the row of that query"
    with promise(backend, contract):
        first = backend.attend(inputs[0][:, :, :1], *inputs[1:])
    require_close(first, expected[:, :, :1], backend, contract, tolerance)


def _check_double_backward(backend: AttentionBackend, device: torch.device) -> None:
    contract = "it declares double_backward: the gradient of a gradient is right"
    results = []
    for attend in (backend.attend, _plain):
        inputs = _inputs(device, torch.float32)
        with promise(backend, contract):
            made = attend(*inputs).square().sum()
            first = torch.autograd.grad(made, inputs, create_graph=True)
            slope = torch.stack([x.square().sum() for x in first]).sum()
            results.append(torch.autograd.grad(slope, inputs))
    for second, right in zip(*results, strict=True):
        require_close(second, right, backend, contract, 1e-3)


def _check_jvp(backend: AttentionBackend, device: torch.device) -> None:
    contract = "it declares jvp: torch.func.jvp gives the directional derivative"
    inputs = tuple(x.detach() for x in _inputs(device, torch.float32))
    directions = tuple(x.flip(0) for x in inputs)
    with promise(backend, contract):
        made = torch.func.jvp(backend.attend, inputs, directions)[1]
    right = torch.func.jvp(_plain, inputs, directions)[1]
    require_close(made, right, backend, contract, 1e-3)


def _check_vmap(backend: AttentionBackend, device: torch.device) -> None:
    contract = "it declares vmap: torch.vmap maps it over one more dimension"
    several = [torch.stack([x, 2 * x]).detach() for x in _inputs(device, torch.float32)]
    with promise(backend, contract), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Torch warns when it falls back to a loop.
        made = torch.vmap(backend.attend)(*several)
    right = torch.stack([_plain(*(x[index] for x in several)) for index in range(2)])
    require_close(made, right, backend, contract, 1e-4)


def _check_compile(backend: AttentionBackend, device: torch.device) -> None:
    contract = "it declares compile: torch.compile traces it without a graph break"
    inputs = [x.detach() for x in _inputs(device, torch.float32)]
    with promise(backend, contract):
        compiled = torch.compile(backend.attend, backend="eager", fullgraph=True)
        made = compiled(*inputs)
    require_close(made, _plain(*inputs), backend, contract, 1e-4)


def _check_bf16(backend: AttentionBackend, device: torch.device) -> None:
    contract = "it declares bf16: it computes in bfloat16"
    inputs = [x.detach() for x in _inputs(device, torch.bfloat16)]
    with promise(backend, contract):
        made = backend.attend(*inputs)
    require(made.dtype == torch.bfloat16, backend, contract, f"it returned {made.dtype}")
    require_close(made.float(), _plain(*(x.float() for x in inputs)), backend, contract, 0.03)


CAPABILITIES: Mapping[str, Callable[[AttentionBackend, torch.device], None]] = {
    "double_backward": _check_double_backward,
    "jvp": _check_jvp,
    "vmap": _check_vmap,
    "compile": _check_compile,
    "bf16": _check_bf16,
}
"""The capabilities that a backend may declare, with their checks."""
