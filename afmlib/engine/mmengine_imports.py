"""Stand-ins for modules that mmengine imports and afmlib never uses.

mmengine 0.10.7 requires ``opencv-python``, the build with a graphical interface, whose import fails
where ``libGL.so.1`` is missing, as on slim containers. mmengine uses it to draw on images. An empty
module replaces it there, and raises with the reason when it is used.

mmengine's wrappers of torch's first FSDP and of its ZeRO optimizer import torch's sharding and,
with it, sympy. That takes as long as ``import torch``, so they are left out. A program that needs
them imports mmengine before afmlib.

Written 2026-11-26. Remove the first when mmengine no longer imports cv2 in
``mmengine.visualization``, the second when it imports its wrappers on first use.
"""

__all__ = ["prepare_mmengine"]

import importlib
import sys
import types
from typing import Any

LEFT_OUT = {
    "mmengine.model.wrappers.fully_sharded_distributed": "MMFullyShardedDataParallel",
    "mmengine.optim.optimizer.zero_optimizer": "ZeroRedundancyOptimizer",
    "mmengine._strategy.fsdp": "FSDPStrategy",
}
"""Modules of mmengine, and the class that each defines."""


def prepare_mmengine() -> None:
    """Installs the stand-ins that are needed, and imports mmengine. Call it before importing it."""
    try:
        importlib.import_module("cv2")
    except ImportError as error:
        stand_in = _StandIn("cv2")
        stand_in.reason = str(error)
        sys.modules["cv2"] = stand_in
    if "mmengine.model" in sys.modules:
        return
    for name, class_name in LEFT_OUT.items():
        module = types.ModuleType(name)
        vars(module)[class_name] = type(class_name, (_LeftOut,), {})
        sys.modules[name] = module
    importlib.import_module("mmengine.runner")


class _LeftOut:
    def __init__(self, *_: Any, **__: Any) -> None:
        raise ImportError(
            f"To use mmengine's {type(self).__name__}, import mmengine before afmlib."
        )


class _StandIn(types.ModuleType):
    reason = ""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name.isupper():  # Constants that mmengine copies at import.
            return name
        raise ImportError(f"OpenCV cannot be used here: {self.reason}")
