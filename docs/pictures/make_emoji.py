"""Plots 32 emoji of the benchmark data.

python docs/pictures/make_emoji.py
"""

from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[2]
ROWS, COLUMNS, GAP, TIMES = 4, 8, 2, 2


def main() -> None:
    """Writes ``docs/pictures/emoji.png``: training images of all categories, in their order."""
    with np.load(ROOT / "benchmarks/data/emoji32.npz", allow_pickle=False) as file:
        images = file["images"][~file["held_out"]]
        labels = file["labels"][~file["held_out"]]
    by_category = images[labels.argsort(kind="stable")]
    picked = by_category[np.linspace(0, len(images) - 1, ROWS * COLUMNS).astype(int)]
    cell = picked.shape[1] + GAP
    picture = Image.new("RGB", (COLUMNS * cell, ROWS * cell), "white")
    for index, image in enumerate(picked):
        row, column = divmod(index, COLUMNS)
        picture.paste(Image.fromarray(image), (column * cell, row * cell))
    size = (TIMES * picture.width, TIMES * picture.height)
    picture.resize(size, Image.Resampling.NEAREST).save(ROOT / "docs/pictures/emoji.png")


if __name__ == "__main__":
    main()
