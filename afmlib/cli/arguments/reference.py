"""The arguments of ``afmlib reference``."""

from jsonargparse import ArgumentParser

from afmlib.cli.arguments import add_common


def build_parser() -> ArgumentParser:
    """Builds the parser."""
    parser = ArgumentParser(
        description="Makes a file of real data to compare samples with, in ADM's form: statistics "
        "of all training images, and some of them."
    )
    parser.add_argument(
        "name", type=str, help="a config, whose data and evaluation.extractor are taken"
    )
    parser.add_argument("--out", type=str, required=True, help="an .npz file: a path or a URL")
    parser.add_argument(
        "--num-images", type=int, default=10_000, help="how many of the images go into the file"
    )
    parser.add_argument(
        "--set",
        type=str,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a key of the config, such as evaluation.extractor=InceptionExtractor",
    )
    parser.add_argument("--device", type=str, help="such as cpu or cuda:0 [cuda if there is one]")
    add_common(parser)
    return parser
