"""The memory of a training step, counted on meta tensors: state, gradients and activations.

    python benchmarks/studies/memory.py [afm_xl2 ...] [--batch N] [--out DIR]

Meta tensors have shapes but no numbers, so a network of any size is counted in seconds and without
memory, by the code that trains it. *State* is what a run holds between two steps: weights, EMA and
optimizer state. *Kept* is what a forward pass of a network stores for its backward pass, per image,
without gradients of parameters. *Peak* is the most that one update holds at a time beyond the state
and the gradients of parameters, per image of the batch: all passes of both networks, forward and
backward. Each is counted with and without activation checkpointing. Workspaces of kernels are not
counted. The outputs are a table and ``memory.json``.
"""

import argparse
import contextlib
import datetime
import json
import shlex
import sys
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from afmlib.config import load_config
from afmlib.engine import build_optimizers, checkpoint_blocks
from afmlib.interfaces import Classifier, Objective
from afmlib.testing.memory import saved_bytes

if not __package__:  # Run as a file: it becomes part of the package.
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    __package__ = "benchmarks.studies"

from ..efficiency.counting import on_meta, random_batch, update_of
from ..efficiency.workload import Workload
from ..machine import describe_versions

MIB, GIB = 2**20, 2**30
OUT = Path(__file__).parents[1] / "results/memory"


class Allocations(TorchDispatchMode):
    """Follows the bytes of all storages that operations make, while they live."""

    def __init__(self, known: Sequence[Tensor]) -> None:
        super().__init__()
        self.known = {tensor.untyped_storage()._cdata for tensor in known}
        self.now = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._follow(tensor.untyped_storage())
        return result

    def _follow(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self.known:
            return
        self.known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size


def bytes_of(tensors: Sequence[Tensor]) -> int:
    """Returns the bytes of tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def count_state(objective: Objective, optimizers: Any) -> dict[str, int]:
    """Takes a step of each optimizer on zero gradients, and counts what a run holds after it."""
    moments = 0
    for player in optimizers.values():
        for parameter in player.trainable:
            parameter.grad = torch.zeros_like(parameter)
        player.step()
        states = player.optimizer.state.values()
        moments += bytes_of([tensor for state in states for tensor in state.values()])
        player.zero_grad()
    weights = bytes_of([*objective.parameters(), *objective.buffers()])
    return {"weights": weights, "optimizers": moments, "state": weights + moments}


def count_kept(objective: Objective, player: str, shape: Sequence[int]) -> int:
    """Returns what a forward pass of a player's network keeps for an image."""
    network = objective.get_submodule(player)
    latents, times = torch.randn(1, *shape, requires_grad=True), torch.ones(1)
    labels = torch.zeros(1, dtype=torch.long)
    given = (times,) if isinstance(network, Classifier) else (labels, times)
    own = [*network.parameters(), *network.buffers(), latents, *given]
    return saved_bytes(lambda: network(latents, *given), own)


def count_peak(objective: Objective, player: str, given: Any, batch: int) -> float:
    """Returns the most that an update holds per image, beyond state and gradients."""
    compute = update_of(objective, player, given)
    trained = objective.get_submodule(player).parameters()
    for parameter in trained:
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
    latents, labels, draws = given
    known = [latents, labels, *(x for x in vars(draws).values() if isinstance(x, Tensor))]
    known += [p.grad for p in objective.parameters() if p.grad is not None]
    known += [*objective.parameters(), *objective.buffers()]
    with Allocations(known) as allocations:
        compute().backward()
    objective.zero_grad()
    return allocations.peak / batch


def count(name: str, batch: int, announce: Callable[[str], Any]) -> dict[str, Any]:
    """Counts a config, with and without activation checkpointing."""
    workload = Workload.of(load_config(name))
    shape = workload.latent_shape
    row: dict[str, Any] = {"config": name, "batch": batch, "networks": {}}
    with contextlib.ExitStack() as stack:
        stack.enter_context(on_meta())
        objective = workload.build()
        row["gib"] = {
            key: round(size / GIB, 3)
            for key, size in count_state(
                objective, build_optimizers(workload.run.optimizers, objective)
            ).items()
        }
        given = random_batch(objective, batch, shape)
        for is_checkpointed in (False, True):
            for player in objective.players:
                if is_checkpointed:
                    checkpoint_blocks(objective.get_submodule(player))
            for player in objective.players:
                announce(f"{name}, {player}")
                numbers = {
                    "kept": round(count_kept(objective, player, shape) / MIB, 1),
                    "peak": round(count_peak(objective, player, given, batch) / MIB, 1),
                }
                key = "checkpointed" if is_checkpointed else "plain"
                row["networks"].setdefault(player, {})[key] = numbers
    return row


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the study and returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("configs", nargs="*", default=["afm_b2", "afm_xl2", "afm_xl2_deep56"])
    parser.add_argument("--batch", type=int, default=8, help="images of an update [8]")
    parser.add_argument("--out", type=Path, default=OUT, help="the folder of memory.json")
    arguments = parser.parse_args(argv)
    words = sys.argv[1:] if argv is None else argv
    console = Console()
    rows = [count(name, arguments.batch, console.log) for name in arguments.configs]
    results = {
        "schema": 1,
        "command": shlex.join(["python", "benchmarks/studies/memory.py", *words]),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "versions": describe_versions(),
        "rows": rows,
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / "memory.json"
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")

    table = Table(title="State in GiB; activations in MiB per image, without / with checkpointing")
    for column in (
        "config",
        "state",
        "optimizers",
        "player",
        "kept by a pass",
        "peak of an update",
    ):
        table.add_column(column, justify="left" if column in ("config", "player") else "right")
    for row in rows:
        for player, numbers in row["networks"].items():
            pairs = [
                f"{numbers['plain'][key]:g} / {numbers['checkpointed'][key]:g}"
                for key in ("kept", "peak")
            ]
            gib = row["gib"]
            sizes = (f"{gib['state']:.2f}", f"{gib['optimizers']:.2f}")
            table.add_row(row["config"], *sizes, player, *pairs)
    console.print(table)
    console.print(f"results: {path}", highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
