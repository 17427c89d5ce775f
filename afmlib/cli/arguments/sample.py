"""The arguments of ``afmlib sample``."""

from jsonargparse import ArgumentParser

from afmlib.cli.arguments import add_common, add_model, add_sampling


def build_parser() -> ArgumentParser:
    """Builds the parser."""
    parser = ArgumentParser(description="Makes samples with a trained model.")
    add_model(parser)
    parser.add_argument(
        "--labels",
        type=str,
        nargs="+",
        help="classes by number or name, taken in turns [all in turns]",
    )
    parser.add_argument("--num", type=int, default=16, help="how many samples")
    parser.add_argument(
        "--out",
        type=str,
        default="samples.png",
        help="a .png grid, an .npz (arr_0, arr_1 the labels), a .safetensors, or a folder/ of "
        "single .png files: a path or a URL",
    )
    parser.add_argument("--columns", type=int, help="columns of the grid [by the labels]")
    add_sampling(parser)
    add_common(parser)
    return parser
