"""The arguments of ``afmlib list``."""

from jsonargparse import ArgumentParser

from afmlib.cli.arguments import add_common


def build_parser() -> ArgumentParser:
    """Builds the parser."""
    parser = ArgumentParser(
        description="Lists components with the distribution that brings each, and configs."
    )
    parser.add_argument(
        "group", type=str, nargs="?", help="a group such as generators, or configs [all]"
    )
    add_common(parser)
    return parser
