"""Suites: sets of claims that one command tests with many runs.

A suite is a module with ``TITLE``, ``ABOUT``, ``FIRST_SEED`` and ``CLAIMS``, in the order of its
report.
"""

__all__ = ["SUITES", "load_suite"]

import importlib
from collections.abc import Sequence
from difflib import get_close_matches

from .claim import Claim, Suite, Untestable

SUITES = {"paper-small": ".paper_small"}
"""The modules of the suites, in this package."""


def load_suite(name: str, only: Sequence[str] = ()) -> Suite:
    """Returns a suite, or some of its claims.

    Args:
        name: Its name.
        only: The ids of the claims. Defaults to all.

    Raises:
        ValueError: If there is no such suite or claim; names the nearest one.
    """
    if name not in SUITES:
        raise ValueError(f"There is no suite {name!r}{_nearest(name, list(SUITES))}.")
    module = importlib.import_module(SUITES[name], __package__)
    claims: list[Claim | Untestable] = list(module.CLAIMS)
    known = [claim.id for claim in claims]
    for claim_id in only:
        if claim_id not in known:
            nearest = _nearest(claim_id, known)
            raise ValueError(f"The suite {name} has no claim {claim_id!r}{nearest}.")
    return Suite(
        name=name,
        title=module.TITLE,
        about=module.ABOUT,
        claims=tuple(claim for claim in claims if not only or claim.id in only),
        first_seed=module.FIRST_SEED,
    )


def _nearest(name: str, known: list[str]) -> str:
    found = get_close_matches(name, known, n=1)
    return f". Did you mean {found[0]!r}?" if found else f": there are {', '.join(known)}"
