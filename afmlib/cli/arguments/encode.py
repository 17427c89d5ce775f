"""The arguments of ``afmlib encode``."""

from typing import Literal

from jsonargparse import ArgumentParser

from afmlib.cli.arguments import add_common


def build_parser() -> ArgumentParser:
    """Builds the parser."""
    parser = ArgumentParser(
        description="Encodes a folder of images by an autoencoder, for training on latents."
    )
    parser.add_argument(
        "--images", type=str, required=True, help="a folder of images, a class per sub-folder"
    )
    parser.add_argument(
        "--size", type=int, default=256, help="images are resized and cropped to it"
    )
    parser.add_argument(
        "--vae",
        type=str,
        default="stabilityai/sd-vae-ft-mse",
        help="the autoencoder: a folder, or a name on the hub",
    )
    parser.add_argument("--out", type=str, required=True, help="the folder of the latents")
    parser.add_argument("--resume", action="store_true", help="go on with what is in --out")
    parser.add_argument(
        "--skip-unreadable", action="store_true", help="leave damaged images out, with a warning"
    )
    parser.add_argument("--batch-size", type=int, default=32, help="images encoded at once")
    parser.add_argument("--workers", type=int, default=8, help="threads that decode files")
    parser.add_argument(
        "--store",
        type=Literal["float16", "float32"],
        default="float16",
        help="precision of what is stored",
    )
    parser.add_argument("--device", type=str, help="such as cpu or cuda:0 [cuda if there is one]")
    add_common(parser)
    return parser
