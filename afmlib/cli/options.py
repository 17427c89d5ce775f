"""The options that several commands have. Nothing here imports torch."""

__all__ = ["HelpFormatter", "add_common", "add_device", "add_model", "add_sampling", "add_set"]

import argparse
from typing import Literal

from jsonargparse import ArgumentParser


class HelpFormatter(argparse.HelpFormatter):
    """Shows defaults that are numbers or texts. jsonargparse's formatter shows all, and types."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog)
        self._action_max_length = 22  # argparse forgets the indent of sub-commands.

    def _get_help_string(self, action: argparse.Action) -> str | None:
        shown = isinstance(action.default, int | float | str) and action.default is not False
        if action.help and shown and action.default != argparse.SUPPRESS:
            return f"{action.help} (default: %(default)s)"
        return action.help


def add_common(parser: ArgumentParser) -> None:
    """Adds the options that every command has."""
    parser.add_argument(
        "--plugin",
        action="append",
        default=[],
        metavar="FILE",
        help="a Python file that registers components; may be repeated",
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")


def add_device(parser: ArgumentParser) -> None:
    """Adds the option for the device."""
    parser.add_argument(
        "--device", type=str, help="such as cpu or cuda:0 (default: cuda if available)"
    )


def add_set(parser: ArgumentParser, example: str) -> None:
    """Adds the option that overrides keys of a config."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help=f"override a key of the config, such as {example}; may be repeated",
    )


def add_model(parser: ArgumentParser, required: bool = True) -> None:
    """Adds the options that choose a model."""
    parser.add_argument(
        "--checkpoint",
        type=str,
        required=required,
        help="a checkpoint, the folder of a run, or an official checkpoint: a path or URL; or a "
        "name of the zoo such as afm_mnist",
    )
    parser.add_argument(
        "--online", action="store_true", help="use the online weights instead of the EMA"
    )
    parser.add_argument(
        "--repeats",
        type=int,
        help="depth repeats of an official checkpoint (default: from the file name)",
    )
    parser.add_argument(
        "--prediction",
        type=Literal["sample", "velocity"],
        help="prediction type of an official checkpoint (default: from its number of steps)",
    )
    parser.add_argument(
        "--num-heads",
        type=int,
        help="attention heads of an official checkpoint (default: from its width)",
    )


def add_sampling(parser: ArgumentParser) -> None:
    """Adds the options of sampling."""
    parser.add_argument(
        "--nfe", type=int, help="network evaluations per sample (default: the model's)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the noises")
    parser.add_argument(
        "--vae",
        type=str,
        help="autoencoder that decodes latents: a folder, or a name on the hub such as "
        "stabilityai/sd-vae-ft-mse",
    )
    parser.add_argument("--batch-size", type=int, help="samples per batch")
    add_device(parser)
    parser.add_argument(
        "--dtype",
        type=Literal["float32", "bfloat16", "float16"],
        default="float32",
        help="precision of the forward passes",
    )
