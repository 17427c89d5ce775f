"""Plots guided and unguided samples from the same noises, one row per scale.

python docs/pictures/make_guidance.py RUNS

RUNS is a folder with runs of ``afm_guided_digits`` by the names ``g-SCALE-0``.
"""

import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from afmlib import load_checkpoint, sample

OUT = Path(__file__).parent / "guidance.png"
SCALES = ("0", "0.03", "0.3")
PER_CLASS, SIDE, GAP, MARGIN = 2, 24, 2, 96


def main(runs: Path) -> None:
    """Writes ``docs/pictures/guidance.png``."""
    labels = [label for label in range(10) for _ in range(PER_CLASS)]
    rows = 2
    size = (MARGIN + len(labels) * (SIDE + GAP), len(SCALES) * (rows * (SIDE + GAP) + 10))
    picture = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(picture)
    for index, scale in enumerate(SCALES):
        model = load_checkpoint(str(runs / f"g-{scale}-0"))
        top = index * (rows * (SIDE + GAP) + 10)
        title = f"scale {scale}" if scale != "0" else "no guidance"
        draw.text((2, top + SIDE - 8), title, "black", ImageFont.load_default(15))
        images = sample(model, labels * rows, seed=0, output="uint8")
        for place, image in enumerate(images):
            row, column = divmod(place, len(labels))
            tile = Image.fromarray(image[0].numpy()).resize((SIDE, SIDE), Image.Resampling.NEAREST)
            at = (MARGIN + column * (SIDE + GAP), top + row * (SIDE + GAP))
            picture.paste(tile.convert("RGB"), at)
    picture.save(OUT)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
