"""Draws samples of emoji by two runs, whose commands are in docs/results.md.

python docs/pictures/make_emoji_samples.py RUNS
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from afmlib import load_checkpoint, sample, save_grid

ROOT = Path(__file__).parents[2]
ROWS = (("afm", 1), ("meanflow", 1), ("meanflow", 4))
"""Runs and numbers of steps; two rows of samples each."""


def main() -> None:
    """Writes ``docs/pictures/emoji-samples.png``: a column per category; two rows are real."""
    archive = np.load(ROOT / "benchmarks/data/emoji32.npz")
    held_out = [archive["held_out"] & (archive["labels"] == k) for k in range(9)]
    images = [Image.fromarray(archive["images"][kept][i]) for i in range(2) for kept in held_out]
    for run, nfe in ROWS:
        model = load_checkpoint(f"{sys.argv[1]}/emoji_{run}")
        images += sample(model, [*range(9)] * 2, nfe=nfe, seed=0, output="pil")
    save_grid(images, ROOT / "docs/pictures/emoji-samples.png", columns=9)


if __name__ == "__main__":
    main()
