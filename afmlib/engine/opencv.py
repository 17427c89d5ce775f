"""A stand-in for OpenCV on machines without libGL.

mmengine 0.10.7 requires ``opencv-python``, the build with a graphical interface, whose import fails
where ``libGL.so.1`` is missing, as on slim containers. mmengine uses it to draw on images, which
afmlib never does. An empty module replaces it, and raises with the reason when it is used.

Written 2026-11-25. Remove it when mmengine no longer imports cv2 in ``mmengine.visualization``.
"""

__all__ = ["ensure_importable"]

import importlib
import sys
import types
from typing import Any


def ensure_importable() -> None:
    """Installs the stand-in if OpenCV cannot be imported. Call it before importing mmengine."""
    try:
        importlib.import_module("cv2")
    except ImportError as error:
        stand_in = _StandIn("cv2")
        stand_in.reason = str(error)
        sys.modules["cv2"] = stand_in


class _StandIn(types.ModuleType):
    reason = ""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name.isupper():  # Constants that mmengine copies at import.
            return name
        raise ImportError(f"OpenCV cannot be used here: {self.reason}")
