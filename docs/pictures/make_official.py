"""Exports a digits model in the authors' layout, loads the file, and plots samples of both models.

python docs/pictures/make_official.py RUN

``RUN`` is the folder of ``afmlib train afm_digits``. If it is missing, the model is trained first.
"""

import sys
import tempfile
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont

from afmlib import load_checkpoint, load_official, sample
from afmlib.cli import main as afmlib
from afmlib.evaluation import image_grid

ROOT = Path(__file__).parents[2]
GAP, TITLE = 16, 26


def main(run: str) -> None:
    """Writes ``docs/pictures/official.png``."""
    if not Path(run).exists():
        afmlib(["train", "afm_digits", "--work-dir", run])
    labels = [digit for _ in range(4) for digit in range(10)]
    made = {}
    made["the run's checkpoint"] = sample(load_checkpoint(run), labels, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "digits_1nfe.pth")
        if afmlib(["export", "--checkpoint", run, "--out", path]) != 0:
            raise SystemExit(1)
        made["exported to .pth, opened by load_official"] = sample(
            load_official(path, num_heads=heads_of(run)), labels, seed=0
        )
    first, second = made.values()
    if not torch.equal(first, second):
        raise SystemExit("The two models differ.")
    grids = {title: Image.fromarray(image_grid(images, 10)) for title, images in made.items()}
    width, height = next(iter(grids.values())).size
    picture = Image.new("RGB", (2 * width + GAP, height + TITLE), "white")
    draw = ImageDraw.Draw(picture)
    for index, (title, grid) in enumerate(grids.items()):
        left = index * (width + GAP)
        draw.text((left, 4), title, "black", ImageFont.load_default(16))
        picture.paste(grid, (left, TITLE))
    picture.save(ROOT / "docs/pictures/official.png")


def heads_of(run: str) -> int:
    """Returns the number of attention heads, which cannot be inferred from the weights."""
    return load_checkpoint(run).generator.blocks[0].attn.num_heads


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "runs/afm_digits")
