"""The arguments of ``afmlib evaluate``."""

from jsonargparse import ArgumentParser

from afmlib.cli.arguments import add_common, add_model


def build_parser() -> ArgumentParser:
    """Builds the parser."""
    parser = ArgumentParser(
        description="Evaluates a trained model, or the images in a file, by a protocol."
    )
    add_model(parser, required=False)
    parser.add_argument(
        "--samples", type=str, help="an .npz of images (arr_0, as ADM's), instead of a model"
    )
    parser.add_argument(
        "--protocol",
        type=str,
        help="a shipped protocol such as adm50k, or a .yaml file [of a run its config's, else "
        "adm50k]",
    )
    parser.add_argument(
        "--reference", type=str, help="an .npz in ADM's form to compare with [the protocol's]"
    )
    parser.add_argument("--nfe", type=int, help="network evaluations of a sample [the protocol's]")
    parser.add_argument(
        "--set",
        type=str,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a key of the config, such as evaluation.num_samples=5000",
    )
    parser.add_argument(
        "--work-dir", type=str, help="a folder for what is done so far: a path or a URL [none]"
    )
    parser.add_argument("--resume", action="store_true", help="go on with what is in the folder")
    parser.add_argument("--out", type=str, help="a .json file for protocol and numbers")
    parser.add_argument("--device", type=str, help="such as cpu or cuda:0 [cuda if there is one]")
    add_common(parser)
    return parser
