"""Makes ``emoji32.npz``, the emoji of the benchmark, from an npm package.

    npm pack emoji-datasource-google@16.0.0
    python benchmarks/studies/make_emoji.py emoji-datasource-google-16.0.0.tgz

The package holds 1906 emoji (and five pieces of some) as PNG files of 64 pixels. Each is put on a
white background, and every square of four pixels is averaged. The arithmetic uses integers, so that
all machines make the same images. Of identical images, the first in Unicode order is kept.

Every fourth group of a category is held out. A group has the woman, man and person variants of an
emoji, facing left and right, and all images closer than `CLOSE` to one of its members. So no
held-out image has a near duplicate among the training images.

With ``--check`` nothing is written, and the existing file is compared.
"""

import argparse
import hashlib
import io
import json
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

OUT = Path(__file__).parents[1] / "data/emoji32.npz"
SHA256 = "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438"
"""The hash of the package."""

CLOSE = 0.14
"""Images with a smaller root mean square difference, in [-1, 1], belong to one group."""

HELD_OUT_EVERY = 4
PIECES = "Component"
"""The category of hair and skin, which are only parts of emoji."""

JOINER = "200D"
PEOPLE = frozenset(["1F466", "1F467", "1F468", "1F469", "1F9D1", "1F9D2"])
SIGNS = frozenset(["2640", "2642", "200D", "FE0F", "27A1"])
"""Woman, man, joiner, in color, facing right."""


def main() -> int:
    """Makes or checks the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("package", type=Path, help="emoji-datasource-google-16.0.0.tgz")
    parser.add_argument("--check", action="store_true", help="compare with the existing file")
    arguments = parser.parse_args()
    content = arguments.package.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256:
        parser.error(f"{arguments.package} is another file: its SHA-256 is {found}, not {SHA256}.")
    arrays = make(content)
    if arguments.check:
        return check(arrays)
    with OUT.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
    print(f"{OUT}: {len(arrays['images'])} images, {arrays['held_out'].sum()} held out")
    return 0


def check(arrays: dict[str, Any]) -> int:
    """Prints which arrays of the file differ, and returns the exit status."""
    with np.load(OUT, allow_pickle=False) as file:
        there = dict(file)
    wrong = sorted(set(there) ^ set(arrays))
    both = (name for name in arrays if name in there)
    wrong += [name for name in both if not np.array_equal(there[name], arrays[name])]
    print(f"{OUT} differs: {', '.join(wrong)}" if wrong else f"{OUT} matches the package.")
    return bool(wrong)


def make(package: bytes) -> dict[str, Any]:
    """Returns the arrays of the file."""
    with tarfile.open(fileobj=io.BytesIO(package)) as archive:
        files = {member.name: member for member in archive.getmembers()}  # Nothing is unpacked.

        def read(name: str) -> bytes:
            file = archive.extractfile(files[f"package/{name}"])
            assert file is not None, f"{name} is not a file"
            return file.read()

        emoji = [entry for entry in json.loads(read("emoji.json")) if entry["category"] != PIECES]
        emoji.sort(key=lambda entry: entry["sort_order"])
        pixels = [shrink(read(f"img/google/64/{entry['image']}")) for entry in emoji]
    images = np.stack(pixels)
    categories = np.array([entry["category"] for entry in emoji])
    class_names, labels = np.unique(categories, return_inverse=True)
    groups = group([entry["unified"] for entry in emoji], images)
    kept = np.sort(np.unique(images.reshape(len(images), -1), axis=0, return_index=True)[1])
    return {
        "images": images[kept],
        "labels": labels[kept].astype(np.int64),
        "held_out": hold_out(labels[kept], groups[kept]),
        "class_names": class_names,
        "names": np.array([entry["short_name"] for entry in emoji])[kept],
    }


def shrink(png: bytes) -> Any:
    """Puts a picture of 64 pixels on a white background and halves its size."""
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGBA")).astype(np.int64)
    colors, opacity = pixels[..., :3], pixels[..., 3:]
    on_white = colors * opacity + 255 * (255 - opacity)
    sums = on_white.reshape(32, 2, 32, 2, 3).sum((1, 3))
    return ((sums + 4 * 255 // 2) // (4 * 255)).astype(np.uint8)


def group(codes: list[str], images: Any) -> Any:
    """Returns the number of each emoji's group, which is the index of its first member."""
    parents = list(range(len(codes)))

    def root(index: int) -> int:
        while parents[index] != index:
            index = parents[index]
        return index

    def join(one: int, other: int) -> None:
        low, high = sorted((root(one), root(other)))
        parents[high] = low

    firsts: dict[str, int] = {}
    for index, code in enumerate(codes):
        join(index, firsts.setdefault(whatever_they_are(code), index))
    rows = images.reshape(len(images), -1).astype(np.int64)
    for index in range(len(rows)):
        squares = np.square(rows[index + 1 :] - rows[index]).mean(1)
        for other in np.flatnonzero(squares < (127.5 * CLOSE) ** 2):
            join(index, index + 1 + int(other))
    return np.array([root(index) for index in range(len(codes))])


def whatever_they_are(code: str) -> str:
    """Returns the code of an emoji without gender and direction.

    A running man, a running person and a runner facing right are all ``1F3C3``.
    """
    points = code.split("-")
    if JOINER not in points:
        return code.removesuffix("-FE0F")
    return "-".join(point for point in points if point not in PEOPLE | SIGNS) or "FAMILY"


def hold_out(labels: Any, groups: Any) -> Any:
    """Returns whether each image is held out: every fourth group of each category is."""
    held_out = np.zeros(len(labels), dtype=bool)
    own = {number: labels[groups == number][0] for number in np.unique(groups)}
    for label in np.unique(labels):
        numbers = [number for number, first in own.items() if first == label]
        held_out |= np.isin(groups, numbers[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY])
    return held_out


if __name__ == "__main__":
    sys.exit(main())
