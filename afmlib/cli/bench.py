"""``afmlib bench``: the installed form of ``benchmarks/run.py``."""

__all__ = ["HELP", "add_arguments", "main"]

import importlib
import sys
from pathlib import Path

from jsonargparse import ArgumentParser

import afmlib

HELP = "Compare contenders, as benchmarks/run.py does."

PACKAGE = Path(afmlib.__file__).parent


def add_arguments(parser: ArgumentParser) -> None:
    """Adds no options: ``main`` parses them, as ``benchmarks/run.py`` does."""


def main(argv: list[str]) -> int:
    """Runs the benchmark and returns its exit status."""
    if (PACKAGE / "benchmarks").is_dir():  # Of a wheel. A clone has them beside the package.
        name = "afmlib.benchmarks.run"
    else:
        name = "benchmarks.run"
        sys.path.insert(0, str(PACKAGE.parent))
    return int(importlib.import_module(name).main(argv, "afmlib bench"))
