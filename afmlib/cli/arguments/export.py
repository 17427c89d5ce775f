"""The arguments of ``afmlib export``."""

from typing import Literal

from jsonargparse import ArgumentParser

from afmlib.cli.arguments import add_common, add_model, add_sampling


def build_parser() -> ArgumentParser:
    """Builds the parser."""
    parser = ArgumentParser(description="Writes a trained model, or its samples, for others.")
    add_model(parser)
    parser.add_argument(
        "--format",
        type=Literal["safetensors", "pth", "npz"],
        help="safetensors: a folder with a model card; pth: one file in the published layout; npz: "
        "balanced and shuffled samples for ADM's evaluation suite [by the ending of --out]",
    )
    parser.add_argument("--out", type=str, required=True, help="the folder or file")
    parser.add_argument("--license", type=str, help="what the model card says of the license")
    parser.add_argument("--num", type=int, default=50_000, help="npz: how many samples")
    add_sampling(parser)
    add_common(parser)
    return parser
