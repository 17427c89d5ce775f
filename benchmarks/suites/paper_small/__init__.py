"""The claims of "Adversarial Flow Models" at the scale of a laptop.

References:
    | Adversarial Flow Models (Lin et al., 2025)
    | https://arxiv.org/abs/2511.22475
"""

__all__ = ["ABOUT", "CLAIMS", "FIRST_SEED", "TITLE"]

from . import (
    any_step,
    appendix_g,
    digits,
    figure_1,
    figure_2,
    guidance,
    not_testable,
    table_1,
    table_2,
    table_12,
)

TITLE = "The paper's claims at small scale"
ABOUT = (
    "What “Adversarial Flow Models” (arXiv 2511.22475) claims, tested on points on the line and in "
    "the plane and on 8 x 8 digits. Each rule was written before the runs of this report were made."
)
FIRST_SEED = 3
"""Some rules were revised after the runs of seeds 0 to 2, so they are judged on others."""

CLAIMS = [
    *figure_1.CLAIMS,
    *figure_2.CLAIMS,
    *guidance.CLAIMS,
    *table_1.CLAIMS,
    *table_2.CLAIMS,
    *any_step.CLAIMS,
    *digits.CLAIMS,
    *appendix_g.CLAIMS,
    *table_12.CLAIMS,
    *not_testable.CLAIMS,
]
