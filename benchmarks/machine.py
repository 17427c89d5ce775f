"""The machine and the versions of a measurement."""

__all__ = ["describe_machine", "describe_versions"]

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch


def describe_machine() -> dict[str, Any]:
    """Returns processor, memory and device."""
    cuda = torch.cuda.is_available()
    return {
        "cpu": _processor(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "memory_gib": _memory_gib(),
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "platform": platform.platform(),
    }


def describe_versions() -> dict[str, str]:
    """Returns the versions of the packages that affect the numbers."""
    packages = ("afmlib", "torch", "mmengine", "torch-fidelity", "scikit-learn", "numpy")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    return None
