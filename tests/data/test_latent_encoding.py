"""Tests for afmlib.data.latent_encoding and the command that uses it."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_autoencoder import save_autoencoder

from afmlib.cli import main
from afmlib.data.diffusers_autoencoder import DiffusersAutoencoder
from afmlib.data.image_folder import ImageFolder
from afmlib.data.latent_encoding import LatentEncoding
from afmlib.data.latent_folder import LatentFolder

NUM = 7


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Seven images of two classes, and an autoencoder."""
    place = tmp_path_factory.mktemp("encoding")
    numbers = np.random.default_rng(0)
    for index in range(NUM):
        folder = place / f"images/class_{index % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = numbers.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    save_autoencoder(place / "vae")
    return place


@pytest.fixture
def encoding(place, tmp_path):
    def make(out="latents", **options):
        images = ImageFolder(str(place / "images"), 8)
        autoencoder = DiffusersAutoencoder(str(place / "vae"))
        options = dict(batch_size=2, dtype="float32") | options
        return LatentEncoding(str(tmp_path / out), images, autoencoder, **options)

    return make


def complete(encoding):
    assert encoding.begin() == 0
    encoding.run()
    encoding.finish()
    return LatentFolder(str(encoding.folder))


def codes(data):
    return data.__getitems__(range(len(data)))


@torch.no_grad()
def test_views_are_image_and_mirror_image(encoding):
    work = encoding()

    data = complete(work)

    stored, labels = codes(data)
    pixels, expected_labels = work.images.__getitems__(range(NUM))
    images = pixels.float() / 127.5 - 1
    for view, seen in enumerate((images, images.flip(-1))):
        posterior = work.autoencoder.network.encode(seen).latent_dist
        torch.testing.assert_close(stored[:, view, 0], posterior.mean)
        torch.testing.assert_close(stored[:, view, 1], posterior.std)
    assert labels.tolist() == expected_labels.tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert data.class_names == ("class_0", "class_1")
    assert data.latent_scale == 0.18215
    names = {"means.npy", "stds.npy", "labels.npy", "conventions.json"}
    assert {path.name for path in work.folder.iterdir()} == names


def test_half_precision_is_close(encoding):
    exact, rounded = (
        codes(complete(encoding("a")))[0],
        codes(complete(encoding("b", dtype="float16")))[0],
    )

    torch.testing.assert_close(rounded, exact, rtol=1e-3, atol=1e-3)
    assert not torch.equal(rounded, exact)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_kill_and_resume_equal_one_process(size, encoding, monkeypatch):
    expected = codes(complete(encoding("one")))[0]
    work, calls = encoding("several"), []
    posterior = work.autoencoder.posterior

    def mortal(images):
        calls.append(len(images))
        if len(calls) == 6:
            raise KeyboardInterrupt
        return posterior(images)

    work.begin()
    monkeypatch.setattr(work.autoencoder, "posterior", mortal)
    with pytest.raises(KeyboardInterrupt):
        work.run(workers=1)
    monkeypatch.undo()

    assert not (work.folder / "conventions.json").exists()
    again = encoding("several")
    assert again.begin(resume=True) == 4
    with pytest.raises(RuntimeError, match="is not finished"):
        again.finish()
    for rank in range(size):
        again.run(rank, size)
    again.finish()
    assert torch.equal(codes(LatentFolder(str(again.folder)))[0], expected)


def test_finished_shards_are_not_redone(encoding, monkeypatch):
    work = encoding()
    work.begin()
    work.run()
    monkeypatch.setattr(work.autoencoder, "posterior", None)  # Would fail if it were called.

    work.run()
    work.finish()


def test_existing_folder_raises(encoding):
    complete(encoding("whole"))
    with pytest.raises(FileExistsError, match="already holds latents"):
        encoding("whole").begin(resume=True)
    encoding("part").begin()
    with pytest.raises(FileExistsError, match="resume it with --resume"):
        encoding("part").begin()


def test_resume_of_another_encoding_raises(encoding):
    work = encoding()
    work.begin()
    for key in json.loads((work.folder / "encoding.json").read_text()):
        copy = work.folder.with_name(f"copy-{key}")
        shutil.copytree(work.folder, copy)
        plan = json.loads((copy / "encoding.json").read_text())
        (copy / "encoding.json").write_text(json.dumps(plan | {key: "another"}))
        with pytest.raises(ValueError, match=f"was started with another {key}: 'another', not "):
            encoding(copy.name).begin(resume=True)


@pytest.mark.parametrize("options", [dict(batch_size=0), dict(dtype="int8")])
def test_arguments_are_checked(options, encoding):
    with pytest.raises(
        ValueError, match="batch_size must be at least 1 and dtype float16 or float32"
    ):
        encoding(**options)


def test_only_local_folders_are_written(place):
    images = ImageFolder(str(place / "images"), 8)
    with pytest.raises(ValueError, match="into a local folder, not into memory://"):
        LatentEncoding("memory://x", images, DiffusersAutoencoder(str(place / "vae")))


def test_encode_command(place, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    images, vae = str(place / "images"), str(place / "vae")
    command = ["encode", "--images", images, "--size", "8", "--vae", vae, "--out", "latents"]

    assert main(command) == 0

    assert "7 images of 2 classes, 0 already encoded" in capsys.readouterr().out
    assert len(LatentFolder("latents")) == NUM
    assert main(command) == 2
    assert "already holds latents" in capsys.readouterr().err
