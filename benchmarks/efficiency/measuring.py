"""Speed and memory of samples and of training iterations, on the device of this machine.

A time is the median of three to ten runs after a warm-up run, or of fewer if they take long. Memory
is what torch allocates on CUDA, and what the process holds on a CPU.
"""

__all__ = ["Growth", "Meter", "UnmeasuredError", "measure"]

import ctypes
import gc
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from afmlib import sample
from afmlib.interfaces import Objective, SampleModel
from afmlib.testing.memory import saved_bytes

from .counting import on_meta, random_batch, update_of
from .workload import Workload, training_step

MIB, GIB = 2**20, 2**30
MATRIX_SIZES = {"cpu": (512, 1024, 2048), "cuda": (4096, 8192)}
USABLE = 0.8
"""The share of the free memory that may be used."""

MAX_SAMPLES = 256
SMALLEST = 4
"""The smallest training batch. Fractions of it are whole numbers."""


class UnmeasuredError(Exception):
    """Raised with the reason why something is not measured."""


@dataclass
class Meter:
    """The limits of measurements on a device, and its speed in them so far."""

    device: torch.device
    peak: float
    """Operations per second in the fastest matrix product."""

    patience: float
    """The time limit of a measured sample or iteration, in seconds."""

    usable: int
    """Bytes that may be used."""

    speed: float = 0.0
    """The most operations per second so far."""

    def expect(self, flops: float) -> float:
        """Returns how many seconds operations take at the best speed so far."""
        return flops / (self.speed or self.peak)

    def require(self, what: str, bytes_needed: int, flops: float) -> None:
        """Raises `UnmeasuredError` if something does not fit into memory or takes too long."""
        if bytes_needed > self.usable:
            raise UnmeasuredError(
                f"{what} needs {bytes_needed / GIB:.1f} GiB, more than {USABLE:.0%} of the free "
                f"{self.usable / USABLE / GIB:.1f} GiB"
            )
        seconds = self.expect(flops)
        if seconds > self.patience:
            raise UnmeasuredError(f"{what} would take at least {seconds:.2g} s")

    def share(self, flops: float, seconds: float) -> float:
        """Records a measurement and returns its share of the peak."""
        self.speed = max(self.speed, flops / seconds)
        return flops / seconds / self.peak


def measure(
    workload: Workload,
    blueprint: Objective,
    entry: dict[str, Any],
    patience: float,
    show: Callable[[float], None],
) -> None:
    """Measures a contender and fills ``entry["measured"]`` step by step.

    Args:
        workload: The contender.
        blueprint: Its objective on the meta device.
        entry: The entry with what was counted.
        patience: The time limit of a measured sample or iteration, in seconds.
        show: Called with the share that is done after each step.
    """
    run = workload.run
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if run.num_threads is not None:
        torch.set_num_threads(run.num_threads)
    if run.precision == "tf32":
        torch.set_float32_matmul_precision("high")
    dtypes = {"float64": torch.float64, "bfloat16": torch.bfloat16}
    dtype = dtypes.get(run.precision, torch.float32)
    peak = matmul_peak(device, dtype)
    meter = Meter(device, peak, patience, int(USABLE * free_memory(device)))
    measured = entry["measured"] = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "dtype": str(dtype).removeprefix("torch."),
        "batch": None,
        "matmul_peak_flops": peak,
        "sample": {},
        "update": None,
    }
    objective, reason = _build(workload, blueprint, meter, entry["flops"]["per_image"])
    show(0.3)
    model = (objective or blueprint).sample_model
    counts = {nfe: flops for nfe, flops in entry["flops"]["sample"].items() if flops is not None}
    for done, (nfe, flops) in enumerate(counts.items(), start=1):
        assert model is not None  # Otherwise nothing was counted.
        autocast = torch.bfloat16 if run.precision == "bfloat16" else None
        try:
            made = measure_sample(workload, model, int(nfe), flops, meter, autocast)
        except UnmeasuredError as error:
            made = _empty("latency_ms", str(error))
        measured["sample"][nfe] = made
        show(0.3 + 0.4 * done / len(counts))
    if objective is None:
        measured["update"] = _empty("seconds", reason)
        return
    update = measure_training(workload, objective, blueprint, entry["flops"]["per_image"], meter)
    measured |= {"batch": update["batch"], "update": update}


def _empty(time_key: str, reason: str) -> dict[str, Any]:
    """Returns the numbers of something that is not measured."""
    names = (time_key, "images_per_second", "peak_memory_mib", "share_of_peak", "batch")
    return {**dict.fromkeys(names), "reason": f"not measured: {reason}"}


def _build(
    workload: Workload, blueprint: Objective, meter: Meter, flops_per_image: float
) -> tuple[Objective | None, str]:
    """Builds the objective, or returns why even the smallest training batch is not measured."""
    smallest = min(SMALLEST, workload.run.global_batch)
    needed = training_memory(workload, blueprint, smallest)
    updates = blueprint.players[blueprint.ema_player]
    try:
        meter.require(
            f"an iteration of {smallest} images", needed, smallest * updates * flops_per_image
        )
    except UnmeasuredError as error:
        return None, str(error)
    torch.manual_seed(workload.run.seed)
    with meter.device:
        return workload.build(), ""


# --- Samples ---


def measure_sample(
    workload: Workload,
    model: SampleModel,
    nfe: int,
    flops: float,
    meter: Meter,
    autocast: torch.dtype | None = None,
) -> dict[str, Any]:
    """Measures the latency of a single sample and the throughput of a batch.

    Args:
        workload: The contender.
        model: Its model. From the meta device it is moved to the meter's, with random weights.
        nfe: Network evaluations per sample.
        flops: Operations per sample.
        meter: The limits.
        autocast: The type of the autocast, if any.

    Raises:
        UnmeasuredError: If a sample does not fit into memory or takes too long.
    """
    tensors = [*model.parameters(), *model.buffers()]
    weights = size_of(tensors)
    meter.require("a sample", weights, flops)
    if any(tensor.is_meta for tensor in tensors):
        _allocate(model, meter.device)
    growth = Growth(meter.device)

    def seconds_of(batch: int) -> float:
        noises = torch.randn(batch, *workload.latent_shape)
        labels = torch.arange(batch) % (model.conventions.num_classes or 1)
        return median_seconds(
            lambda: sample(model, labels, nfe, noises=noises, batch_size=batch, dtype=autocast),
            meter.device,
        )

    latency = seconds = seconds_of(1)
    share, batch = meter.share(flops, latency), 1
    limit = min(MAX_SAMPLES, int(0.5 / meter.expect(flops)))  # A batch takes half a second.
    if limit >= 2:
        batch = 2 ** (limit.bit_length() - 1)
        seconds = seconds_of(batch)
        share = meter.share(batch * flops, seconds)
    return {
        "latency_ms": 1e3 * latency,
        "images_per_second": batch / seconds,
        "peak_memory_mib": (weights + growth.bytes()) / MIB,
        "share_of_peak": share,
        "batch": batch,
        "reason": None,
    }


def _allocate(network: nn.Module, device: torch.device) -> None:
    """Moves a network from the meta device, with small random weights."""
    network.to_empty(device=device)
    with torch.no_grad():
        for tensor in (*network.parameters(), *network.buffers()):
            if tensor.is_floating_point():
                tensor.normal_(0, 0.02)
            else:
                tensor.zero_()


# --- Training ---


def training_memory(workload: Workload, objective: Objective, batch: int) -> int:
    """Returns the bytes of networks, gradients, at most two moments and the activations of a batch.

    Args:
        workload: The contender.
        objective: Its objective on the meta device.
        batch: The number of images.
    """
    everything = [*objective.parameters(), *objective.buffers()]
    networks = {player: objective.get_submodule(player) for player in objective.players}
    trainable = {
        player: size_of(p for p in network.parameters() if p.requires_grad)
        for player, network in networks.items()
    }
    activations = []
    given = random_batch(objective, batch, workload.latent_shape)
    for player in objective.players:
        compute = update_of(objective, player, given)
        with on_meta():
            activations.append(saved_bytes(compute, everything))
    moments = 2 * sum(trainable.values())
    return size_of(everything) + max(trainable.values()) + moments + max(activations)


def measure_training(
    workload: Workload,
    objective: Objective,
    blueprint: Objective,
    flops_per_image: float,
    meter: Meter,
) -> dict[str, Any]:
    """Measures an iteration of training.

    The batch is that of the config, or a smaller one that fits into memory and takes a second.
    """
    # Each update of the generator has its own batch.
    updates = objective.players[objective.ema_player]
    batch = workload.run.global_batch
    while batch // 2 >= SMALLEST and (
        meter.expect(batch * updates * flops_per_image) > 1
        or training_memory(workload, blueprint, batch) > meter.usable
    ):
        batch //= 2
    held = size_of([*objective.parameters(), *objective.buffers()])
    growth = Growth(meter.device)
    seconds = median_seconds(training_step(workload, objective, batch, meter.device), meter.device)
    return {
        "seconds": seconds,
        "images_per_second": batch * updates / seconds,
        "peak_memory_mib": (held + growth.bytes()) / MIB,
        "share_of_peak": meter.share(batch * updates * flops_per_image, seconds),
        "batch": batch,
        "reason": None,
    }


# --- Time ---


def median_seconds(function: Callable[[], Any], device: torch.device) -> float:
    """Returns the median time of a function, without its first run."""
    function()
    seconds: list[float] = []
    while not (
        (len(seconds) >= 3 and sum(seconds) >= 0.3)
        or len(seconds) >= 10
        or (seconds and sum(seconds) >= 10)
    ):
        _synchronize(device)
        start = time.perf_counter()
        function()
        _synchronize(device)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Returns the operations per second of the fastest matrix product, as torch is set up."""
    speeds = []
    for size in MATRIX_SIZES[device.type]:
        left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
        product = torch.empty_like(left)

        def multiply(left: Tensor = left, right: Tensor = right, out: Tensor = product) -> None:
            torch.mm(left, right, out=out)

        with torch.no_grad():
            speeds.append(2 * size**3 / median_seconds(multiply, device))
    return max(speeds)


# --- Memory ---


def size_of(tensors: Iterable[Tensor]) -> int:
    """Returns the bytes of tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def free_memory(device: torch.device) -> int:
    """Returns the free bytes of a device; on a CPU, of this machine or container."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = _kibibytes(Path("/proc/meminfo"), "MemAvailable")
    free = free or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    allowed = free_in_container(Path("/sys/fs/cgroup"))
    return free if allowed is None else min(free, allowed)


def free_in_container(group: Path) -> int | None:
    """Returns the free bytes of a container; None if it is not limited."""
    numbers = []
    for name in ("memory.max", "memory.current"):
        text = (group / name).read_text().strip() if (group / name).exists() else ""
        if not text.isdigit():
            return None
        numbers.append(int(text))
    limit, used = numbers
    cache = 0  # Cached files, which the kernel drops first, count as free.
    if (group / "memory.stat").exists():
        lines = (
            line.split(maxsplit=1) for line in (group / "memory.stat").read_text().splitlines()
        )
        cache = int(dict(lines).get("inactive_file", 0))
    return max(limit - used + cache, 0)


def _kibibytes(path: Path, name: str) -> int | None:
    """Returns the bytes of an entry of a file of the kernel."""
    if not path.exists():
        return None
    lines = dict(line.split(":", 1) for line in path.read_text().splitlines() if ":" in line)
    return 1024 * int(lines[name].split()[0]) if name in lines else None


class Growth:
    """The growth of the peak memory since the object was made."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        gc.collect()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            _give_back()
        self.before = self._peak()

    def bytes(self) -> int:
        """Returns the growth so far; an upper bound where the system cannot reset the peak."""
        return self._peak() - self.before

    def _peak(self) -> int:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        peak = _kibibytes(Path("/proc/self/status"), "VmHWM")
        if peak is not None:
            return peak
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _give_back() -> None:
    """Returns freed memory to the system and resets the peak, where the system allows it."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # GNU C library only.
    if trim is not None:
        trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return
