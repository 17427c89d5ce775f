"""Trains the runs of docs/inspect.md and plots its figures.

python docs/pictures/make_inspect.py [FOLDER OF THE RUNS]

Existing runs are resumed or reused. All of them take about ten minutes on a CPU core.
"""

import sys
from pathlib import Path

from PIL import Image

from afmlib.cli import main as afmlib

NUM_COLORS = 128
PICTURES = Path(__file__).parent
RUNS = {
    "afm_gaussians1d-0": ["afm_gaussians1d", "--set", "seed=0"],
    "afm_gaussians1d-1": ["afm_gaussians1d", "--set", "seed=1"],
    "gan_gaussians1d-0": ["gan_gaussians1d", "--set", "seed=0"],
    "gan_gaussians1d-1": ["gan_gaussians1d", "--set", "seed=1"],
    "afm_gaussians2d-0": ["afm_gaussians2d", "--set", "seed=0"],
    "gan_gaussians2d-0": ["gan_gaussians2d", "--set", "seed=0"],
    "afm_any_gaussians2d-0": ["afm_any_gaussians2d", "--set", "seed=0"],
    "afm_digits": ["afm_digits"],
    "gan_digits": ["gan_digits"],
    "auto_digits": [
        "afm_digits",
        *("--set", "phases={every: 2000}"),
        *("--set", "num_images=120000"),
        *("--set", "evaluate_every=8000"),
    ],
}
DRAWN = {
    "inspect-interpolation": "interpolation --checkpoint afm_digits --labels 3 7 8 0 --steps 10",
    "inspect-compare": "compare --checkpoints afm_digits gan_digits",
    "inspect-line": "transport --checkpoint afm_gaussians1d-0 afm_gaussians1d-1 gan_gaussians1d-0 "
    "gan_gaussians1d-1",
    "inspect-plane": "transport --checkpoint afm_gaussians2d-0 afm_any_gaussians2d-0 "
    "gan_gaussians2d-0 --nfe 1 4 1",
    "inspect-training": "training --work-dir auto_digits",
}


def main(folder: Path) -> None:
    """Trains missing runs and plots the figures."""
    for name, arguments in RUNS.items():
        require(["train", *arguments, "--work-dir", str(folder / name), "--resume"])
    for name, words in DRAWN.items():
        paths = [str(folder / word) if word in RUNS else word for word in words.split()]
        picture = PICTURES / f"{name}.png"
        require(["inspect", *paths, "--out", str(picture)])
        Image.open(picture).quantize(NUM_COLORS).save(picture, optimize=True)  # For the page.


def require(argv: list[str]) -> None:
    """Runs an afmlib command and exits if it fails."""
    status = afmlib(argv)
    if status:
        raise SystemExit(status)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/inspect"))
