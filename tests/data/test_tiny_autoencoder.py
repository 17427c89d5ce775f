"""Tests for afmlib.data.tiny_autoencoder."""

import logging

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from afmlib.data.digits import Digits
from afmlib.data.mnist import MNIST
from afmlib.data.tiny_autoencoder import MAX_IMAGES, TinyAutoencoder, _read
from afmlib.interfaces import Dataset

SMALL = dict(in_channels=1, size=8, latent_channels=4, width=16)


class Squares(Dataset):
    """Color images with a bright square, whose place depends on the index."""

    num_classes = 1
    class_names = ("square",)

    def __init__(self, channels=3, size=12, count=40):
        self.latent_shape = (channels, size, size)
        self.count = count

    def __len__(self):
        return self.count

    def __getitems__(self, indices):
        images = torch.full((len(indices), *self.latent_shape), -1.0)
        for row, index in enumerate(indices):
            left = index % (self.latent_shape[1] - 4)
            images[row, :, 2:6, left : left + 4] = 1.0
        return images, torch.zeros(len(indices), dtype=torch.long)

    def augment(self, stored, draws):
        return stored


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("AFMLIB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def trained(images, **options):
    autoencoder = TinyAutoencoder(**options)
    autoencoder.fit(images)
    return autoencoder


@given(st.sampled_from([1, 3]), st.integers(1, 40), st.integers(1, 9), st.sampled_from([16, 32]))
def test_codes_are_an_eighth_and_images_keep_their_size(channels, size, latent_channels, width):
    autoencoder = TinyAutoencoder(channels, size, latent_channels, width)
    autoencoder.scale.fill_(0.5)
    images = torch.rand(2, channels, size, size) * 2 - 1

    latents = autoencoder.encode(images)

    side = -(-size // 8)
    assert latents.shape[1:] == autoencoder.latent_shape == (latent_channels, side, side)
    decoded = autoencoder.decode(latents)
    assert decoded.shape == images.shape
    assert decoded.abs().max() <= 1


def test_training_is_reproducible(cache):
    autoencoder = TinyAutoencoder(**SMALL, num_steps=5)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    autoencoder.fit(Digits())
    first = autoencoder.state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads
    for path in cache.iterdir():
        path.unlink()

    torch.manual_seed(1)
    with torch.inference_mode():  # Where evaluations may happen.
        second = trained(Digits(), **SMALL, num_steps=5).state_dict()

    assert all(torch.equal(first[name], second[name]) for name in first)


def test_training_improves_and_latents_have_unit_variance(cache):
    images = Digits()
    errors = []
    for num_steps in (1, 60):
        autoencoder = trained(images, **SMALL, num_steps=num_steps)
        latents = autoencoder.encode(images.images, torch.Generator().manual_seed(0))
        errors.append((autoencoder.decode(latents) - images.images).square().mean())

    assert errors[1] < 0.5 * errors[0]
    assert latents.std() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(("channels", "size"), [(3, 12), (1, 28), (3, 16)])
def test_other_sizes_and_channels_train(cache, channels, size):
    images = Squares(channels, size)
    autoencoder = trained(images, in_channels=channels, size=size, width=16, num_steps=2)

    pixels = images.__getitems__([0, 1])[0]

    assert autoencoder.decode(autoencoder.encode(pixels)).shape == pixels.shape


def test_weights_are_cached_by_images_and_settings(cache, caplog):
    caplog.set_level(logging.INFO, logger="afmlib")

    def trainings():
        caplog.clear()
        for images, options in (
            (Squares(), dict()),
            (Squares(count=39), dict()),
            (Squares(), dict(kl_scale=0.1)),
            (Squares(), dict(width=32)),
        ):
            trained(images, **{"size": 12, "width": 16, "num_steps": 1, **options})
        return sum("once" in record.message for record in caplog.records)

    assert trainings() == 4
    assert trainings() == 0
    assert len(list(cache.iterdir())) == 4


def test_untrained_autoencoder_says_so():
    with pytest.raises(RuntimeError, match=r"has not seen any images: call fit"):
        TinyAutoencoder().encode(torch.zeros(1, 3, 32, 32))


def test_images_of_another_shape_raise():
    with pytest.raises(ValueError, match="set in_channels to 1 and size to 8"):
        TinyAutoencoder().fit(Digits())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(in_channels=2), "in_channels must be 1 or 3, got 2"),
        (dict(size=0), "must be at least 1, got 0, 8 and 1500"),
        (dict(width=24), "width must be a multiple of 16, got 24"),
        (dict(kl_scale=-1.0), "kl_scale must be at least 0"),
    ],
)
def test_wrong_arguments_raise(arguments, message):
    with pytest.raises(ValueError, match=message):
        TinyAutoencoder(**arguments)


def test_many_images_are_limited_to_a_fixed_choice():
    images = Squares(1, 8, MAX_IMAGES + 7)

    assert len(_read(images)) == MAX_IMAGES
    assert torch.equal(_read(images), _read(images))


def test_autoencoder_of_mnist_is_in_the_package(cache):
    images = MNIST()

    autoencoder = trained(images, in_channels=1)  # Training would take minutes.

    assert not cache.exists()
    test = images.held_out()
    pixels = test.augment(test.images, None)
    error = (autoencoder.decode(autoencoder.encode(pixels)) - pixels).square().mean()
    assert error == pytest.approx(0.0094, abs=2e-4)
