"""The arguments of ``afmlib inspect`` and of its pictures."""

from typing import Literal

from jsonargparse import ArgumentParser

from afmlib.cli.arguments import add_common, add_model, add_sampling

RUNS = "checkpoints, or folders of runs"
OUT = "a .png file or URL"
NFE = "network evaluations of a sample: one number, or one per model [each model's own]"
EACH = "one for all, or one per file"


def build_parser() -> ArgumentParser:
    """Builds the parser, to which `add_pictures` adds the rest once it is in its place."""
    return ArgumentParser(description="Draws what a model does, or what its training did.")


def add_pictures(parser: ArgumentParser) -> None:
    """Adds a parser for each picture."""
    pictures = parser.add_subcommands(required=True, dest="picture")
    for name, build in PICTURES.items():
        pictures.add_subcommand(name, build())


def _interpolation() -> ArgumentParser:
    parser = ArgumentParser(
        description="Draws samples on the great circles between pairs of noises, a row for each."
    )
    add_model(parser)
    parser.add_argument(
        "--labels",
        type=str,
        nargs="+",
        help="classes of the rows by number or name, in turns [all in turns]",
    )
    parser.add_argument("--rows", type=int, default=4, help="pairs of noises")
    parser.add_argument("--steps", type=int, default=8, help="samples of a row, ends included")
    parser.add_argument("--out", type=str, default="interpolation.png", help=OUT)
    add_sampling(parser)
    add_common(parser)
    return parser


def _compare() -> ArgumentParser:
    parser = ArgumentParser(
        description="Draws what several models make of the same noises and labels, a block each."
    )
    parser.add_argument(
        "--checkpoints",
        type=str,
        nargs="+",
        required=True,
        help="checkpoints, folders of runs, or published files",
    )
    parser.add_argument(
        "--labels", type=str, nargs="+", help="classes by number or name, a column each [all]"
    )
    parser.add_argument("--rows", type=int, default=2, help="samples of each class")
    parser.add_argument("--nfe", type=int, nargs="+", help=NFE)
    _add_published(parser)
    parser.add_argument(
        "--vae", type=str, help="what decodes latents: a folder, or a name on the hub"
    )
    parser.add_argument("--batch-size", type=int, help="samples made at once")
    _add_others(parser, out="compare.png")
    return parser


def _transport() -> ArgumentParser:
    parser = ArgumentParser(
        description="Draws the paths of models of points from noise to data, and the optimal ones."
    )
    parser.add_argument("--checkpoint", type=str, nargs="+", required=True, help=RUNS)
    parser.add_argument(
        "--num", type=int, default=2000, help="noises that are carried, and that numbers are of"
    )
    parser.add_argument("--lines", type=int, default=150, help="how many of the paths are drawn")
    parser.add_argument("--nfe", type=int, nargs="+", help=NFE)
    _add_others(parser, out="transport.png")
    return parser


def _training() -> ArgumentParser:
    parser = ArgumentParser(
        description="Draws the log, the evaluations and the decisions of a run as curves."
    )
    parser.add_argument("--work-dir", type=str, required=True, help="the folder of a run")
    parser.add_argument("--out", type=str, default="training.png", help=OUT)
    add_common(parser)
    return parser


def _add_published(parser: ArgumentParser) -> None:
    """Adds the options of published files among several models."""
    parser.add_argument(
        "--repeats",
        type=int,
        nargs="+",
        help=f"of published files: runs of the blocks, {EACH} [by its name]",
    )
    parser.add_argument(
        "--prediction",
        type=Literal["sample", "velocity"],
        nargs="+",
        help=f"of published files: what they predict, {EACH} [by the number of steps]",
    )
    parser.add_argument(
        "--num-heads",
        type=int,
        nargs="+",
        help=f"of published files: attention heads, {EACH} [by its width]",
    )


def _add_others(parser: ArgumentParser, out: str) -> None:
    """Adds the options of the pictures of several models."""
    parser.add_argument("--seed", type=int, default=0, help="the seed of the noises")
    parser.add_argument("--out", type=str, default=out, help=OUT)
    parser.add_argument("--device", type=str, help="such as cpu or cuda:0 [cuda if there is one]")
    parser.add_argument("--online", action="store_true", help="the online weights, not the average")
    add_common(parser)


PICTURES = {
    "interpolation": _interpolation,
    "compare": _compare,
    "transport": _transport,
    "training": _training,
}
