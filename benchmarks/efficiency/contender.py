"""One contender: first counted on meta tensors, then measured on the device at hand."""

__all__ = ["count", "measure"]

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from afmlib.interfaces import Objective, SampleModel

from .counting import count_forward, count_parameters, count_sample, count_update
from .gauge import Gauge
from .matmul import matmul_peak
from .memory import forward_memory, free_memory, size_of
from .sampling import compute_sample, measure_sample
from .subject import Subject
from .training import TrainingPlan, measure_training

NFE = (1, 2, 4)
"""Network evaluations of a sample, besides the model's own number."""

Show = Callable[[float], None]


# --- Counted ---


def count(subject: Subject, objective: Objective) -> dict[str, Any]:
    """Counts parameters and operations; those of updates are per image of the config's batch.

    Args:
        subject: The contender.
        objective: The same on the meta device.
    """
    batch = subject.run.global_batch
    batches = subject.batches(objective, batch, torch.device("meta"))
    updates = {
        player: count_update(objective, player, batches[player].next()) / batch
        for player in objective.players
    }
    forward = count_forward(_main_network(objective), *_one(subject))
    total = sum(times * updates[player] for player, times in objective.players.items())
    own = objective.players[objective.ema_player]
    return {
        "parameters": count_parameters(objective),
        "flops": {
            "forward": forward,
            "sample": _count_samples(subject, objective),
            "updates": updates,
            "per_image": total / own,
            "forward_passes": total / own / forward,
        },
    }


def _main_network(objective: Objective) -> nn.Module:
    return objective.get_submodule(objective.ema_player)


def _one(subject: Subject) -> tuple[torch.Tensor, torch.Tensor]:
    latents = torch.empty(1, *subject.latent_shape, device="meta")
    return latents, torch.zeros(1, dtype=torch.long, device="meta")


def _count_samples(subject: Subject, objective: Objective) -> dict[str, int | None]:
    """Counts a sample of each number of evaluations; None of those that the model refuses."""
    model = objective.sample_model
    if model is None:
        return {}
    counts: dict[str, int | None] = {}
    for nfe in sorted({*NFE, model.conventions.nfe}):
        try:
            counts[str(nfe)] = count_sample(model, *_one(subject), nfe)
        except ValueError:
            counts[str(nfe)] = None
    return counts


# --- Measured ---


def measure(
    subject: Subject,
    blueprint: Objective,
    entry: dict[str, Any],
    where: tuple[torch.device, float],
    show: Show,
) -> None:
    """Measures what was counted, on a device, and fills it into the entry bit by bit.

    Args:
        subject: The contender.
        blueprint: The same on the meta device.
        entry: With what was counted.
        where: The device, and the seconds that a sample or an iteration may take.
        show: Is told the share that is done, whenever something more is filled in.
    """
    device, patience = where
    dtype = _set_precision(subject)
    peak = matmul_peak(device, dtype)
    gauge = Gauge(device, peak, patience)
    measured = entry["measured"] = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "dtype": str(dtype).removeprefix("torch."),
        "batch": None,
        "matmul_peak_flops": peak,
        "sample": {},
        "update": None,
    }
    plan = TrainingPlan.of(subject, blueprint, free_memory(device))
    kept = forward_memory(_main_network(blueprint), *_one(subject))
    flops = entry["flops"]["per_image"] * plan.updates
    is_possible = plan.obstacle(flops, gauge) is None
    objective = _build(subject, device) if is_possible else None
    show(0.3)
    model = (objective or blueprint).sample_model
    if model is not None:
        _measure_samples(subject, model, entry, gauge, (plan.usable, kept), show)
    update = measure_training(subject, objective, plan, flops, gauge)
    measured |= {"batch": update["batch"], "update": update}


def _set_precision(subject: Subject) -> torch.dtype:
    """Sets threads and precision as training does, and returns the type of matrix products."""
    if subject.run.num_threads is not None:
        torch.set_num_threads(subject.run.num_threads)
    if subject.run.precision == "tf32":
        torch.set_float32_matmul_precision("high")
    return {"float64": torch.float64, "bfloat16": torch.bfloat16}.get(
        subject.run.precision, torch.float32
    )


def _build(subject: Subject, device: torch.device) -> Objective:
    torch.manual_seed(subject.run.seed)
    with device:
        return subject.build()


def _measure_samples(
    subject: Subject,
    model: SampleModel,
    entry: dict[str, Any],
    gauge: Gauge,
    memory: tuple[int, int],
    show: Show,
) -> None:
    """Measures or computes samples of each number of evaluations.

    Args:
        subject: The contender.
        model: What makes them, on the device or still on meta.
        entry: With what was counted.
        gauge: What the device does.
        memory: What may be taken, and what a pass of a single sample takes at most.
        show: Is told the share that is done.
    """
    usable, kept = memory
    tensors = [*model.parameters(), *model.buffers()]
    weights = size_of(tensors)
    most = (usable - weights) // max(kept, 1)
    if most >= 1 and any(tensor.is_meta for tensor in tensors):
        _allocate(model, gauge.device)
    autocast = torch.bfloat16 if subject.run.precision == "bfloat16" else None
    counts = entry["flops"]["sample"]
    for done, (nfe, flops) in enumerate(counts.items(), start=1):
        if flops is None:
            continue
        if most >= 1:
            made = measure_sample(
                model, subject.latent_shape, int(nfe), flops, gauge, most, autocast
            )
        else:
            made = compute_sample(flops, weights, gauge, "the weights do not fit into memory")
        entry["measured"]["sample"][nfe] = made
        show(0.3 + 0.4 * done / len(counts))


def _allocate(network: nn.Module, device: torch.device) -> None:
    """Moves a network from the meta device to another, with small random weights."""
    network.to_empty(device=device)
    with torch.no_grad():
        for tensor in (*network.parameters(), *network.buffers()):
            if tensor.is_floating_point():
                tensor.normal_(0, 0.02)
            else:
                tensor.zero_()
