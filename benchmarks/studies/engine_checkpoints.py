"""Times to save, verify and load a checkpoint; its size, and computed sizes of others."""

__all__ = ["computed", "measure_checkpoints"]

import functools
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from afmlib import build_objective
from afmlib.engine import Runner, state  # Before mmengine.
from afmlib.io import checkpoint

from .engine_steps import now, ratios, table_row


def measure_checkpoints(
    runner: Runner, num_saves: int, step: float, show: Callable[[float], None]
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Saves and loads a run.

    Args:
        runner: The run.
        num_saves: The number of checkpoints.
        step: Seconds of a training step, for comparison.
        show: Called with the share that is done.

    Returns:
        The rows of the table, and the size of each file.
    """
    networks, training = _content(runner)
    path = Path(runner.folder) / "plain.pt"
    seconds: dict[str, list[float]] = defaultdict(list)
    growths = []
    for index in range(num_saves):
        runner.last_checkpoint = None  # Otherwise it would not save again.
        growth, own, folder = _growth_of(lambda: timed(runner.save))
        growths += [growth / 1e9] if growth is not None else []
        seconds["save"].append(own)
        seconds["plain"].append(timed(torch.save, {**networks, **training}, path)[0])
        seconds["plain, fsync"].append(seconds["plain"][-1] + timed(_sync, path)[0])
        seconds["verify"].append(timed(checkpoint.find_checkpoint, runner.folder)[0])
        seconds["load"].append(timed(_load_run, runner, folder)[0])
        files = {file.name: file.stat().st_size for file in sorted(Path(folder).iterdir())}
        plain = path.stat().st_size
        path.unlink()
        shutil.rmtree(folder)
        show((index + 1) / num_saves)
    return _checkpoint_rows(seconds, growths, step, sum(files.values()) / plain), files


def _checkpoint_rows(
    seconds: Mapping[str, list[float]], growths: list[float], step: float, size_ratio: float
) -> list[dict[str, Any]]:
    row = functools.partial(table_row, "A checkpoint")
    both = [sum(pair) for pair in zip(seconds["verify"], seconds["load"], strict=True)]
    rows = [
        row("save: checksums, all files fsynced", "s", seconds["save"]),
        row("torch.save of the same content, fsynced", "s", seconds["plain, fsync"]),
        row("torch.save of the same content, not fsynced", "s", seconds["plain"]),
        row("verify", "s", seconds["verify"]),
        row("load, including verification", "s", seconds["load"]),
        row(
            "save / torch.save, both fsynced",
            "ratio",
            ratios(seconds["save"], seconds["plain, fsync"]),
        ),
        row("save / training step", "ratio", [value / step for value in seconds["save"]]),
        row("(verify + load) / training step", "ratio", [value / step for value in both]),
        row("size / size of torch.save", "ratio", [size_ratio]),
    ]
    return rows + ([row("memory to save", "GB", growths)] if growths else [])


def _content(runner: Runner) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the content of a checkpoint: networks, and the rest of the state."""
    runner.last_checkpoint = None
    with mock.patch.object(state, "save_checkpoint") as save:
        runner.save()
    _, networks, training, *_ = save.call_args.args
    return networks, training


def _load_run(runner: Runner, folder: str) -> None:
    state.load_run(folder, runner.step, runner.stateful)


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def timed(function: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    """Returns the seconds of a call, and its result."""
    start = now()
    result = function(*arguments)
    return now() - start, result


def _growth_of(function: Callable[[], tuple[float, Any]]) -> tuple[int | None, float, Any]:
    """Returns the peak growth of the process in bytes, or None, and the result of a call."""
    process = Path("/proc/self")
    try:
        (process / "clear_refs").write_text("5")  # Resets the peak.
        before = _status(process / "status", "VmRSS")
    except OSError:
        return None, *function()
    result = function()
    return max(_status(process / "status", "VmHWM") - before, 0), *result


def _status(path: Path, key: str) -> int:
    line = next(line for line in path.read_text().splitlines() if line.startswith(f"{key}:"))
    return 1024 * int(line.split()[1])


def computed(name: str, kind: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    """Computes the size of a checkpoint on the meta device.

    It consists of each network's state and, per trainable parameter, the second moment of AdamW:
    beta1 is 0 in these configs. Names, headers, config and manifest are left out.
    """
    with torch.device("meta"):
        objective = build_objective(spec)
    players = [objective.get_submodule(player) for player in objective.players]
    trainable = (p for network in players for p in network.parameters() if p.requires_grad)
    files = {
        f"{network}.safetensors": _bytes(objective.get_submodule(network).state_dict().values())
        for network in (*objective.players, "generator_ema")
    }
    return {"of": name, "kind": kind, "files": {**files, "training.pt": _bytes(trainable)}}


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
