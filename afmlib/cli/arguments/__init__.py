"""The arguments of each command; torch is not imported here."""

__all__ = ["add_common"]

from jsonargparse import ArgumentParser


def add_common(parser: ArgumentParser) -> None:
    """Adds the options that every command has."""
    parser.add_argument(
        "--plugin", type=str, action="append", default=[], help="a Python file of components"
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
