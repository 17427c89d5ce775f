r"""The names of the published files, which say what a state dict cannot.

A name such as ``xl2_56layer_1nfe_guided_FID2.08.pth`` has the size of the network, the number of
layers where blocks are repeated, and the number of network evaluations. What the output means
follows from that: the files for several evaluations predict a velocity ("v" in the paper), the
others the sample ("x").

References:
    | Adversarial Flow Models (Lin et al., 2025), Tables 4 to 7
    | https://arxiv.org/abs/2511.22475
"""

__all__ = ["PUBLISHED", "PublishedName", "parse_name", "parse_nfe"]

import re
from dataclasses import dataclass

DEPTHS = {"b2": 12, "m2": 16, "l2": 24, "xl2": 28}
"""The number of blocks of each published size."""

PUBLISHED: dict[str, float] = {
    "b2_1nfe_noguide": 6.07,
    "b2_1nfe_guided": 3.05,
    "m2_1nfe_noguide": 5.21,
    "m2_1nfe_guided": 2.82,
    "l2_1nfe_noguide": 4.36,
    "l2_1nfe_guided": 2.63,
    "xl2_1nfe_noguide": 3.98,
    "xl2_1nfe_guided": 2.38,
    "xl2_2nfe_noguide": 2.36,
    "xl2_2nfe_guided": 2.11,
    "xl2_4nfe_guided": 2.02,
    "xl2_56layer_1nfe_guided": 2.08,
    "xl2_112layer_1nfe_guided": 1.94,
}
"""The thirteen generators, and the FID that the paper reports for each."""

_NAME = re.compile(
    r"(?<![a-z0-9])(?P<size>b2|m2|l2|xl2)(?:_(?P<layers>\d{1,4})layer)?_(?P<nfe>\d{1,4})nfe(?!\d)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class PublishedName:
    """What the name of a file says; None where it is silent."""

    nfe: int | None = None
    """The number of network evaluations of a sample."""

    repeats: int | None = None
    """How often the stack of blocks runs."""


def parse_name(path: str) -> PublishedName:
    """Reads the name of a file; of one that is named otherwise, nothing is known.

    Raises:
        ValueError: If it names a number of layers that repeating the blocks does not make.

    Example:
        >>> parse_name("hf://who/which/xl2_56layer_1nfe_guided_FID2.08.pth")
        PublishedName(nfe=1, repeats=2)
        >>> parse_name("renamed.pth")
        PublishedName(nfe=None, repeats=None)
    """
    match = _match(path)
    if match is None:
        return PublishedName()
    depth = DEPTHS[match["size"].lower()]
    layers = int(match["layers"] or depth)
    if layers < 1 or layers % depth:
        raise ValueError(
            f"The name {match.string} says {layers} layers, and {match['size']} has {depth} "
            "blocks, of which no whole number of repetitions makes them: give repeats."
        )
    return PublishedName(nfe=int(match["nfe"]), repeats=layers // depth)


def parse_nfe(path: str) -> int | None:
    """Reads the number of network evaluations alone, whatever the name says of layers.

    Example:
        >>> parse_nfe("xl2_57layer_1nfe.pth")
        1
    """
    match = _match(path)
    return None if match is None else int(match["nfe"])


def _match(path: str) -> re.Match[str] | None:
    return _NAME.search(path.rstrip("/").rsplit("/", 1)[-1])
