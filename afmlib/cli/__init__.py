"""The command line, with one file per command."""

__all__ = ["main"]

from afmlib.cli.main import main
