"""Tests for benchmarks/data/emoji32.npz and the program that makes it."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.studies import make_emoji

DATA = Path(__file__).parents[2] / "benchmarks/data"


@pytest.fixture(scope="module")
def emoji():
    with np.load(DATA / "emoji32.npz", allow_pickle=False) as file:
        return dict(file)


def package(**images):
    """Packs emoji of one color, RGBA, as the package of npm has them."""
    entries = []
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:

        def add(name, content):
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))

        for order, (code, (category, color)) in enumerate(images.items()):
            code = code.strip("_").replace("_", "-")
            png = io.BytesIO()
            Image.fromarray(np.full((64, 64, 4), color, np.uint8)).save(png, "PNG")
            add(f"img/google/64/{code}.png", png.getvalue())
            entry = dict(unified=code, image=f"{code}.png", category=category, short_name=code)
            entries.insert(0, entry | dict(sort_order=order))
        add("emoji.json", json.dumps(entries).encode())
    return buffer.getvalue()


def test_pictures_are_halved_on_white():
    pixels = np.zeros((64, 64, 4), np.uint8)
    pixels[::2, ::2] = (255, 0, 0, 255)  # One of four is red, the others are seen through.
    pixels[:2, :2] = (0, 0, 0, 51)  # A fifth of black.
    png = io.BytesIO()
    Image.fromarray(pixels).save(png, "PNG")

    small = make_emoji.shrink(png.getvalue())

    assert small.dtype == np.uint8
    assert small.shape == (32, 32, 3)
    assert small[0, 0].tolist() == [204, 204, 204]
    assert small[5, 5].tolist() == [255, 191, 191]


def test_duplicates_and_pieces_are_dropped():
    colors = {f"_{i}": ("ab"[i % 2], (31 * i, 255 - 31 * i, 0, 255)) for i in range(8)}
    same = {"_8": ("a", colors["_2"][1]), "_9": ("Component", (0, 0, 9, 255))}

    arrays = make_emoji.make(package(**colors, **same))

    assert arrays["names"].tolist() == list("01234567")
    assert arrays["class_names"].tolist() == ["a", "b"]
    assert arrays["labels"].tolist() == [0, 1] * 4
    assert arrays["held_out"].tolist() == [False] * 6 + [True] * 2
    assert arrays["images"][2, 0, 0].tolist() == list(colors["_2"][1][:3])


def test_similar_emoji_are_one_group():
    codes = [
        "1F3C3",
        "1F3C3-200D-2642-FE0F",
        "1F3C3-200D-2640-FE0F-200D-27A1-FE0F",
        "1F468-200D-2695",
    ]
    codes += ["1F9D1-200D-2695", "1F469", "1F468-200D-1F466", "2695-FE0F", "2640", "27A1"]
    images = np.arange(10, dtype=np.uint8)[:, None, None, None] * 25 + np.zeros((1, 2, 2, 3), int)
    images[9] = images[8] + 17  # 0.133 in [-1, 1]; neighbors differ by 0.196.

    groups = make_emoji.group(codes, images)

    assert groups.tolist() == [0, 0, 0, 3, 3, 5, 6, 3, 8, 8]


def test_committed_file(emoji):
    images, labels, held_out = emoji["images"], emoji["labels"], emoji["held_out"]

    assert images.shape == (1892, 32, 32, 3)
    assert len(np.unique(images.reshape(1892, -1), axis=0)) == 1892
    assert labels.dtype == np.int64
    assert len(emoji["class_names"]) == labels.max() + 1 == 9
    shares = np.bincount(labels[held_out]) / np.bincount(labels)
    assert shares.min() > 0.2
    assert shares.max() < 0.27
    assert set(emoji["names"][emoji["class_names"][labels] == "Activities"]) > {"ticket", "soccer"}


def test_no_held_out_emoji_has_a_twin_in_training(emoji):
    rows = emoji["images"].reshape(1892, -1).astype(np.float64) / 127.5 - 1
    train, rest = rows[~emoji["held_out"]], rows[emoji["held_out"]]

    products = np.square(rest).sum(1)[:, None] + np.square(train).sum(1) - 2 * rest @ train.T
    nearest = np.sqrt(products.min() / rows.shape[1])

    assert nearest > make_emoji.CLOSE


def test_other_package_is_an_error(tmp_path, monkeypatch, capsys):
    path = tmp_path / "package.tgz"
    path.write_bytes(package(_1=("a", (0, 0, 0, 255))))
    monkeypatch.setattr("sys.argv", ["make_emoji.py", str(path)])

    with pytest.raises(SystemExit):
        make_emoji.main()

    assert "is another file: its SHA-256 is" in capsys.readouterr().err
