"""Memory: how much is free, how much something took, and how much training would take.

On CUDA it is what torch allocates. On a CPU it is what the process holds, as the operating system
sees it; where it does not let the highest mark be set back, the numbers are upper bounds.
"""

__all__ = ["GIB", "MIB", "Growth", "forward_memory", "free_memory", "size_of", "training_memory"]

import ctypes
import gc
import os
import resource
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from afmlib.config import OptimizerConfig
from afmlib.interfaces import Minibatch, Objective
from afmlib.testing.memory import saved_bytes

from .counting import on_meta, pass_through

MIB, GIB = 2**20, 2**30
MOMENTS = {"AdamW": 2, "Adam": 2, "RAdam": 2, "SGD": 0}
"""Numbers that an optimizer keeps of each parameter."""


def free_memory(device: torch.device) -> int:
    """Returns how many bytes can still be taken."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = _meminfo("MemAvailable") or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    allowed = _allowed(Path("/sys/fs/cgroup"))
    return free if allowed is None else min(free, allowed)


def _allowed(group: Path) -> int | None:
    """Returns the bytes that a container may still take; None where it is not limited."""
    limit, used = (_number(group / name) for name in ("memory.max", "memory.current"))
    if limit is None or used is None:
        return None
    return max(limit - used + _reclaimable(group / "memory.stat"), 0)


def _reclaimable(path: Path) -> int:
    """Returns the bytes of files in use that the kernel gives up first: they count as free."""
    if not path.exists():
        return 0
    stat = dict(line.split() for line in path.read_text().splitlines())
    return int(stat.get("inactive_file", 0))


def _meminfo(name: str) -> int | None:
    return _kibibytes(Path("/proc/meminfo"), name)


def _kibibytes(path: Path, name: str) -> int | None:
    """Returns the bytes that a file of the kernel says something is."""
    if not path.exists():
        return None
    lines = dict(line.split(":", 1) for line in path.read_text().splitlines() if ":" in line)
    return 1024 * int(lines[name].split()[0]) if name in lines else None


def _number(path: Path) -> int | None:
    text = path.read_text().strip() if path.exists() else ""
    return int(text) if text.isdigit() else None


class Growth:
    """By how many bytes the highest mark of the memory rises above what is in use now."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        gc.collect()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            _give_back()
        self.before = self._mark()

    def bytes(self) -> int:
        """Returns the rise so far."""
        return self._mark() - self.before

    def _mark(self) -> int:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        mark = _kibibytes(Path("/proc/self/status"), "VmHWM")
        if mark is not None:
            return mark
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _give_back() -> None:
    """Gives freed memory back to the system, and sets the highest mark to what is in use."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # Of the GNU C library alone.
    if trim is not None:
        trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:  # There is none, or it is not allowed: see above.
        return


def size_of(tensors: Iterable[Tensor]) -> int:
    """Returns the bytes of tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def forward_memory(network: nn.Module, latents: Tensor, labels: Tensor) -> int:
    """Computes the bytes that a forward pass keeps for a backward pass.

    A pass that keeps nothing takes less. The tensors are on the meta device.
    """
    with on_meta():
        given = [*network.parameters(), *network.buffers(), latents, labels]
        return saved_bytes(lambda: pass_through(network, latents, labels), given)


def training_memory(
    objective: Objective,
    optimizers: Mapping[str, OptimizerConfig],
    parts: Mapping[str, Sequence[Minibatch]],
) -> dict[str, int]:
    """Computes what training takes: bytes by what they are for.

    Gradients and activations are those of one player at a time, and so the most of any.

    Args:
        objective: What is trained, on the meta device.
        optimizers: How each player learns.
        parts: The parts of the batch of each player, on the meta device.
    """
    own = {player: _trainable(objective.get_submodule(player)) for player in objective.players}
    sizes = {player: size_of(parameters) for player, parameters in own.items()}
    return {
        "networks": size_of([*objective.parameters(), *objective.buffers()]),
        "gradients": max(sizes.values()),
        "moments": sum(MOMENTS[optimizers[name].type] * size for name, size in sizes.items()),
        "activations": max(_kept(objective, player, parts[player]) for player in own),
    }


def _trainable(network: nn.Module) -> list[Tensor]:
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def _kept(objective: Objective, player: str, parts: Sequence[Minibatch]) -> int:
    given = [*objective.parameters(), *objective.buffers()]
    with on_meta():
        first = objective.terms_of_parts(player, parts)[0]
        return saved_bytes(first, given)
