"""The arguments of each command; torch is not imported here."""

__all__ = ["add_common", "add_model", "add_sampling"]

from typing import Literal

from jsonargparse import ArgumentParser


def add_common(parser: ArgumentParser) -> None:
    """Adds the options that every command has."""
    parser.add_argument(
        "--plugin", type=str, action="append", default=[], help="a Python file of components"
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")


def add_model(parser: ArgumentParser, required: bool = True) -> None:
    """Adds the options that say which model: of a run, or out of a published file."""
    parser.add_argument(
        "--checkpoint",
        type=str,
        required=required,
        help="a checkpoint, the folder of a run, or a published file: a path or a URL",
    )
    parser.add_argument("--online", action="store_true", help="the online weights, not the average")
    parser.add_argument(
        "--repeats", type=int, help="of a published file: runs of its blocks [by its name]"
    )
    parser.add_argument(
        "--prediction",
        type=Literal["sample", "velocity"],
        help="of a published file: what it predicts [by its number of steps]",
    )
    parser.add_argument(
        "--num-heads", type=int, help="of a published file: attention heads [by its width]"
    )


def add_sampling(parser: ArgumentParser) -> None:
    """Adds the options that say how samples are made."""
    parser.add_argument("--nfe", type=int, help="network evaluations of a sample [the model's own]")
    parser.add_argument("--seed", type=int, default=0, help="the seed of the noises")
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
