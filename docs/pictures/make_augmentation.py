"""Plots a pair of digits under several draws of the discriminator's augmentation.

python docs/pictures/make_augmentation.py
"""

from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont

from afmlib.augmentation.paired import PairedAugmentation
from afmlib.data.digits import Digits

OUT = Path(__file__).parent / "augmentation.png"
DRAWS, SCALE, GAP, MARGIN = 9, 8, 6, 92
ROWS = ("sample", "partner")


def main() -> None:
    """Writes ``docs/pictures/augmentation.png``."""
    digits = Digits()
    rows = [int(row) for row in torch.nonzero(digits.labels == 3)[:2, 0]]
    pair = digits.__getitems__(rows)[0]  # In [-1, 1]: what is filled with 0 shows gray.
    augmentation = PairedAugmentation(probability=0.6)
    numbers = augmentation.draw(
        pair[:1].expand(DRAWS, -1, -1, -1), torch.Generator().manual_seed(2)
    )
    side = 8 * SCALE
    size = (MARGIN + (DRAWS + 1) * (side + GAP), len(ROWS) * (side + GAP) + 22)
    picture = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(15)
    draw.text((MARGIN, 2), "as it is", "black", font)
    draw.text((MARGIN + side + GAP, 2), "nine draws, the same for both", "black", font)
    for row, (name, image) in enumerate(zip(ROWS, pair, strict=True)):
        made = augmentation(image.expand(DRAWS, -1, -1, -1), numbers, 0)
        top = 22 + row * (side + GAP)
        draw.text((4, top + side // 2 - 8), name, "black", font)
        for column, one in enumerate([image, *made]):
            pixels = ((one[0] + 1) * 127.5).byte().numpy()
            tile = Image.fromarray(pixels).resize((side, side), Image.Resampling.NEAREST)
            picture.paste(tile.convert("RGB"), (MARGIN + column * (side + GAP), top))
    picture.save(OUT)


if __name__ == "__main__":
    main()
