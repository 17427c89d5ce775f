"""``afmlib push``: a trained model on the Hugging Face Hub."""

__all__ = ["HELP", "add_arguments", "run"]

from typing import Any

from jsonargparse import ArgumentParser

from afmlib.cli.options import add_common, add_model
from afmlib.terminal import say

HELP = "Upload a model with its card to the Hugging Face Hub."


def add_arguments(parser: ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument("repository", type=str, metavar="OWNER/NAME", help="made if it is new")
    add_model(parser)
    parser.add_argument("--license", type=str, help="the license in the model card, such as mit")
    parser.add_argument(
        "--base-model", type=str, help="the repository whose weights were fine-tuned, in the card"
    )
    parser.add_argument(
        "--vae", type=str, help="autoencoder that decodes latents for the picture in the card"
    )
    parser.add_argument("--private", action="store_true", help="a new repository is private")
    parser.add_argument("--message", type=str, help="the commit message")
    add_common(parser)


def run(options: Any) -> int:
    """Uploads, and prints how to open the result."""
    from afmlib.cli.models import given_model
    from afmlib.hub import push_to_hub
    from afmlib.registry import load_plugin_file

    for plugin in options.plugin:
        load_plugin_file(plugin)
    model = given_model(options).model
    told = {} if options.message is None else {"message": options.message}
    url = push_to_hub(
        model,
        options.repository,
        license=options.license,
        base_model=options.base_model,
        autoencoder=options.vae,
        private=options.private or None,
        **told,
    )
    say(f"{url}: afmlib sample --checkpoint hf://{options.repository}")
    if options.license is None:
        say("Without --license TEXT, the model card has no license of its own.")
    return 0
