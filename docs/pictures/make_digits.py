"""Combines sample grids of the committed benchmark into the picture of the README.

python docs/pictures/make_digits.py
"""

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "benchmarks/results/digits/pictures"
GRIDS = {
    "adversarial flow": "afm_digits-seed0-nfe1.png",
    "GAN (no transport loss)": "gan_digits-seed0-nfe1.png",
    "flow matching": "flow_matching_digits-seed0-nfe1.png",
}
GAP, TITLE = 16, 26


def main() -> None:
    """Writes ``docs/pictures/digits.png``."""
    grids = [Image.open(PICTURES / name).convert("RGB") for name in GRIDS.values()]
    width, height = grids[0].size
    size = (len(grids) * (width + GAP) - GAP, height + TITLE)
    picture = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(picture)
    for index, (title, grid) in enumerate(zip(GRIDS, grids, strict=True)):
        left = index * (width + GAP)
        draw.text((left, 4), f"{title}, one step", "black", ImageFont.load_default(16))
        picture.paste(grid, (left, TITLE))
    picture.save(ROOT / "docs/pictures/digits.png")


if __name__ == "__main__":
    main()
