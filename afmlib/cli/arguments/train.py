"""The arguments of ``afmlib train``."""

from jsonargparse import ArgumentParser

from afmlib.cli.arguments import add_common


def build_parser() -> ArgumentParser:
    """Builds the parser."""
    parser = ArgumentParser(description="Trains by a config and leaves all in a folder.")
    parser.add_argument("name", type=str, help="a config, such as afm_digits, or a .yaml file")
    parser.add_argument(
        "--work-dir",
        type=str,
        help="the folder of the run: a path, or a URL such as s3://bucket/run [runs/NAME]",
    )
    parser.add_argument(
        "--set",
        type=str,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a key of the config, such as objective.ot_scale=0.1",
    )
    parser.add_argument("--resume", action="store_true", help="go on with the run in the folder")
    parser.add_argument("--device", type=str, help="such as cpu or cuda:0 [cuda if there is one]")
    parser.add_argument(
        "--print-config", action="store_true", help="print the config as composed, and stop"
    )
    add_common(parser)
    return parser
