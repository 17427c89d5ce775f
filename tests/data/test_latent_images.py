"""Tests for afmlib.data.latent_images."""

import pytest
import torch

from afmlib.data.digits import Digits
from afmlib.data.latent_images import LatentImages
from afmlib.interfaces import Autoencoder


class Halving(Autoencoder):
    """Keeps every second column; the std of a code is a tenth of its mean."""

    latent_scale = 2.0

    def __init__(self):
        super().__init__()
        self.seen = None

    def fit(self, images):
        self.seen = images

    def posterior(self, images):
        means = images[..., ::2, ::2]
        return means, 0.1 * means.abs()

    def encode(self, images, generator=None):
        return self.latent_scale * self.posterior(images)[0]

    def decode(self, latents):
        return latents.repeat_interleave(2, -1).repeat_interleave(2, -2) / self.latent_scale


@pytest.fixture(scope="module")
def data():
    return LatentImages(Digits(), Halving())


def test_autoencoder_sees_the_training_images(data):
    assert data.autoencoder.seen is data.images
    assert data.decoder() is data.autoencoder
    assert data.pixels() is data.images
    assert (len(data), data.latent_shape, data.latent_scale) == (1437, (1, 4, 4), 2.0)


def test_latents_are_codes_of_the_images(data):
    rows = [3, 1, 4]
    stored, labels = data.__getitems__(rows)
    draws = data.draw(3, torch.Generator().manual_seed(0))

    plain, latents = data.augment(stored, None), data.augment(stored, draws)

    means = data.images.images[rows][..., ::2, ::2]
    noises = draws[:, 1:].reshape(means.shape)
    torch.testing.assert_close(plain, 2 * means)
    torch.testing.assert_close(latents, 2 * (means + 0.1 * means.abs() * noises))
    assert torch.equal(labels, data.images.labels[rows])


def test_mirrored_views_are_drawn_for_half_of_the_latents():
    data = LatentImages(Digits(), Halving(), mirror=True)
    rows = [7] * 1000
    stored, _ = data.__getitems__(rows)
    draws = data.draw(1000, torch.Generator().manual_seed(0))
    draws[:, 1:] = 0

    latents = data.augment(stored, draws)

    views = [
        2 * data.images.images[7].flip(-1)[..., ::2, ::2],
        2 * data.images.images[7, :, ::2, ::2],
    ]
    is_mirrored, is_plain = ((latents == view).flatten(1).all(1) for view in views)
    assert (is_mirrored ^ is_plain).all()
    assert 400 < is_mirrored.sum() < 600


def test_held_out_images_are_encoded_by_the_same_autoencoder(data):
    rest = data.held_out()

    assert rest.autoencoder is data.autoencoder
    assert data.autoencoder.seen is data.images
    assert rest.pixels() is data.images.held_out()
    assert len(rest) == 360
    assert rest.held_out() is None


def test_latents_of_latents_raise(data):
    with pytest.raises(ValueError, match="LatentImages needs images"):
        LatentImages(data, Halving())
