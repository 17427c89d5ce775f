"""Draws the figure of each claim that its runs allow for."""

__all__ = ["draw_all", "picture_path"]

from pathlib import Path

from .claim import Claim, Suite
from .evidence import Evidence, MissingRunError


def picture_path(folder: Path, claim_id: str) -> Path:
    """Returns where the figure of a claim lies."""
    return folder / f"{claim_id}.png"


def draw_all(suite: Suite, evidence: Evidence, folder: Path) -> None:
    """Draws the figures, and leaves out those of claims whose runs are not there."""
    for claim in suite.testable:
        if claim.draw is not None:
            _draw(claim, evidence, picture_path(folder, claim.id))


def _draw(claim: Claim, evidence: Evidence, path: Path) -> None:
    assert claim.draw is not None
    path.unlink(missing_ok=True)  # One of earlier runs would not belong to these.
    try:
        figure = claim.draw(evidence)
    except MissingRunError:
        return
    figure.savefig(path, metadata={"Software": None})
