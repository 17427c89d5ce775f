"""Tests for afmlib.metrics.classifier_extractor."""

import pytest
import torch

from afmlib.data.digits import Digits
from afmlib.data.mnist import MNIST
from afmlib.data.points import EightGaussians
from afmlib.metrics.classifier_extractor import ClassifierExtractor


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("AFMLIB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_training_is_reproducible_and_learns(cache):
    digits = Digits()
    first = ClassifierExtractor(digits, num_steps=60)
    (path,) = cache.iterdir()
    path.unlink()

    second = ClassifierExtractor(digits, num_steps=60)

    assert first.name == second.name
    test = digits.held_out()
    accuracy = (second.extract(test.images)["logits"].argmax(1) == test.labels).double().mean()
    assert accuracy > 0.8
    features = second(digits.images)
    assert features.shape == (1437, 64)
    assert features.var(0).mean().item() == pytest.approx(1, abs=0.01)


def test_steps_and_data_make_another_network(cache):
    names = {
        ClassifierExtractor(Digits(), num_steps=1).name,
        ClassifierExtractor(Digits(), num_steps=2).name,
        ClassifierExtractor(Digits("test"), num_steps=1).name,
    }

    assert len(names) == len(list(cache.iterdir())) == 3


def test_images_are_clipped(cache):
    extractor = ClassifierExtractor(Digits(), num_steps=1)
    wild = 5 * Digits().images[:9]

    assert torch.equal(extractor(wild), extractor(wild.clamp(-1, 1)))


def test_other_shapes_and_data_raise(cache):
    extractor = ClassifierExtractor(Digits(), num_steps=1)

    with pytest.raises(ValueError, match=r"is for images of shape \(1, 8, 8\), got \(3, 8, 8\)"):
        extractor(torch.zeros(2, 3, 8, 8))
    with pytest.raises(ValueError, match="ClassifierExtractor needs images"):
        ClassifierExtractor(EightGaussians())
    with pytest.raises(ValueError, match="num_steps must be at least 1, got 0"):
        ClassifierExtractor(Digits(), num_steps=0)


def test_extractor_of_mnist_is_in_the_package(cache):
    images = MNIST()

    extractor = ClassifierExtractor(images)

    assert not cache.exists()
    test = images.held_out()
    logits = extractor.extract(test.augment(test.images, None))["logits"]
    assert (logits.argmax(1) == test.labels).double().mean() > 0.98
