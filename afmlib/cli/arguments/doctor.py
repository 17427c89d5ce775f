"""The arguments of ``afmlib doctor``."""

from jsonargparse import ArgumentParser

from afmlib.cli.arguments import add_common


def build_parser() -> ArgumentParser:
    """Builds the parser."""
    parser = ArgumentParser(
        description="Tells about versions, devices, attention, plugins and missing extras."
    )
    add_common(parser)
    return parser
