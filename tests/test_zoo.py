"""Tests for the zoo: the models in the package, which are loaded by name."""

import json

import pytest
import torch

from afmlib import from_pretrained, load_checkpoint, sample
from afmlib.cli import main
from afmlib.data.mnist import MNIST
from afmlib.io import zoo
from afmlib.io.checkpoint import CheckpointError, find_checkpoint, read_manifest
from afmlib.io.zoo import ZOO, zoo_folder, zoo_names
from afmlib.metrics.classifier_extractor import ClassifierExtractor
from afmlib.metrics.digits_extractor import DigitsExtractor

MAX_BYTES = 3_000_000
KINDS = {"README.md", ".json", ".png", ".yaml", ".safetensors"}


@pytest.fixture(scope="module")
def extractors():
    return {"digits": DigitsExtractor(), "mnist": ClassifierExtractor(MNIST())}


def test_names():
    assert {"afm_digits", "afm_mnist", "meanflow_digits", "meanflow_mnist"} <= set(zoo_names())


@pytest.mark.parametrize("name", zoo_names())
def test_samples_are_of_the_requested_class(name, extractors):
    labels = torch.arange(10).repeat(10)

    images = sample(name, labels, output="uint8").float() / 127.5 - 1

    assert torch.equal(images, sample(from_pretrained(name), labels, output="uint8") / 127.5 - 1)
    logits = extractors[name.rsplit("_", 1)[-1]].extract(images)["logits"]
    assert (logits.argmax(1) == labels).double().mean() >= 0.8
    for digit in range(10):  # They are not one image for each class.
        assert images[labels == digit].var(0).mean() > 0.02


@pytest.mark.parametrize("name", zoo_names())
def test_folders_are_small_plain_and_documented(name):
    files = list((ZOO / name).iterdir())
    card = (ZOO / name / "README.md").read_text()

    assert sum(file.stat().st_size for file in files) <= MAX_BYTES
    assert all(file.name in KINDS or file.suffix in KINDS for file in files)
    assert read_manifest(str(ZOO / name))["plugins"] == []
    for text in ("frechet_distance", "License: ", "Trained on", "seed"):
        assert text in card


def test_a_local_folder_comes_first(tmp_path, monkeypatch):
    assert find_checkpoint("afm_digits") == zoo_folder("afm_digits")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "afm_digits").mkdir()

    with pytest.raises(CheckpointError, match="There is no checkpoint in afm_digits"):
        load_checkpoint("afm_digits")


def test_unknown_name_lists_the_zoo():
    with pytest.raises(CheckpointError, match=r"checkpoint in afm_emoji. The zoo has afm_digits,"):
        load_checkpoint("afm_emoji")


def test_corrupt_weights_raise(tmp_path, monkeypatch):
    folder = tmp_path / "afm_digits"
    folder.mkdir()
    for file in (ZOO / "afm_digits").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-5] ^= 1
    weights.write_bytes(content)
    monkeypatch.setattr(zoo, "ZOO", tmp_path)

    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        load_checkpoint("afm_digits")


def test_commands_take_names(tmp_path, capsys):
    out, numbers = tmp_path / "grid.png", tmp_path / "numbers.json"

    words = ["sample", "--checkpoint", "afm_mnist", "--labels", "3", "--num", "4"]
    assert main([*words, "--out", str(out)]) == 0
    assert main(["list", "zoo"]) == 0
    words = ["evaluate", "--checkpoint", "afm_digits", "--set", "evaluation.metrics=[Diversity]"]
    assert main([*words, "--set", "evaluation.num_samples=40", "--out", str(numbers)]) == 0

    assert out.stat().st_size > 1000
    assert "meanflow_digits" in capsys.readouterr().out
    assert 0.5 < json.loads(numbers.read_text())["values"]["diversity"] < 1.2
