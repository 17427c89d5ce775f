"""The arguments of ``afmlib evaluate``."""

from jsonargparse import ArgumentParser

from afmlib.cli.arguments import add_common


def build_parser() -> ArgumentParser:
    """Builds the parser."""
    parser = ArgumentParser(description="Evaluates a trained model by the protocol of its config.")
    parser.add_argument(
        "--checkpoint", type=str, required=True, help="a checkpoint, or the folder of a run"
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
    parser.add_argument("--out", type=str, help="a .json file for protocol and numbers")
    parser.add_argument("--device", type=str, help="such as cpu or cuda:0 [cuda if there is one]")
    parser.add_argument("--online", action="store_true", help="the online weights, not the average")
    add_common(parser)
    return parser
