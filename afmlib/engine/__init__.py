"""The engine: trains an objective on data by a config, on mmengine's Runner."""

__all__ = [
    "BatchLayout",
    "EvaluationHook",
    "PlayerBatches",
    "PlayerOptimizer",
    "Runner",
    "TrainingError",
    "TrainingStep",
    "build_optimizers",
    "checkpoint_blocks",
    "cpu_has_bfloat16",
    "join_processes",
    "leave_processes",
    "player_batches",
    "prepare_blocks",
]

from afmlib.engine.mmengine_imports import prepare_mmengine

prepare_mmengine()  # Before anything else imports mmengine.

from afmlib.engine.batches import BatchLayout, PlayerBatches, player_batches  # noqa: E402
from afmlib.engine.hooks import EvaluationHook  # noqa: E402
from afmlib.engine.optimizers import PlayerOptimizer, build_optimizers  # noqa: E402
from afmlib.engine.runner import Runner  # noqa: E402
from afmlib.engine.step import TrainingError, TrainingStep  # noqa: E402
from afmlib.launch import cpu_has_bfloat16, join_processes, leave_processes  # noqa: E402
from afmlib.nn.blocks import checkpoint_blocks, prepare_blocks  # noqa: E402
