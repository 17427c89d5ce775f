"""The arguments of ``afmlib sample``."""

from typing import Literal

from jsonargparse import ArgumentParser

from afmlib.cli.arguments import add_common, add_model


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
    parser.add_argument("--nfe", type=int, help="network evaluations of a sample [the model's own]")
    parser.add_argument("--seed", type=int, default=0, help="the seed of the noises")
    parser.add_argument(
        "--out",
        type=str,
        default="samples.png",
        help="a .png grid, an .npz (arr_0, arr_1 the labels), a .safetensors, or a folder/ of "
        "single .png files",
    )
    parser.add_argument("--columns", type=int, help="columns of the grid [by the labels]")
    parser.add_argument(
        "--vae",
        type=str,
        help="what decodes latents: a folder, or a name on the hub such as "
        "stabilityai/sd-vae-ft-mse",
    )
    parser.add_argument("--batch-size", type=int, help="samples made at once")
    parser.add_argument("--device", type=str, help="such as cpu or cuda:0 [cuda if there is one]")
    parser.add_argument(
        "--dtype",
        type=Literal["float32", "bfloat16", "float16"],
        default="float32",
        help="precision of the forward passes",
    )
    add_common(parser)
    return parser
