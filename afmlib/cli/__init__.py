"""The command line: train, sample, evaluate, list, doctor."""

__all__ = ["main"]

from afmlib.cli.main import main
