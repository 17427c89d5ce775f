"""Plots a digit and nine random augmentations of it, as in classifier training.

python docs/pictures/make_affine.py
"""

from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont

from afmlib.data.augmented_images import AugmentedImages
from afmlib.data.digits import Digits

OUT = Path(__file__).parent / "affine.png"
DRAWS, SCALE, GAP, TOP = 9, 8, 6, 22
CLASSES = (3, 7)


def main() -> None:
    """Writes ``docs/pictures/affine.png``."""
    digits = AugmentedImages(Digits(), probability=1.0)
    side = 8 * SCALE
    size = ((DRAWS + 1) * (side + GAP) - GAP, TOP + len(CLASSES) * (side + GAP) - GAP)
    picture = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(15)
    draw.text((0, 2), "as it is", "black", font)
    draw.text((side + GAP, 2), "nine draws, the same for both digits", "black", font)
    draws = digits.draw(DRAWS, torch.Generator().manual_seed(0))
    for row, label in enumerate(CLASSES):
        index = int(torch.nonzero(digits.images.labels == label)[0])
        stored, _ = digits.__getitems__([index])
        made = digits.augment(stored.expand(DRAWS, -1, -1, -1), draws)
        for column, one in enumerate([digits.augment(stored, None)[0], *made]):
            pixels = ((one[0] + 1) * 127.5).byte().numpy()
            tile = Image.fromarray(pixels).resize((side, side), Image.Resampling.NEAREST)
            picture.paste(tile.convert("RGB"), (column * (side + GAP), TOP + row * (side + GAP)))
    picture.save(OUT)


if __name__ == "__main__":
    main()
