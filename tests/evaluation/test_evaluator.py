"""Tests for afmlib.evaluation.evaluator."""

import torch

from afmlib.data.digits import Digits
from afmlib.evaluation.evaluator import DecodedImages
from afmlib.interfaces import Autoencoder
from afmlib.testing import check_dataset


class Doubling(Autoencoder):
    def encode(self, images, generator=None):
        return images[..., ::2, ::2]

    def decode(self, latents):
        return latents.repeat_interleave(2, -1).repeat_interleave(2, -2)


def test_decoded_images_are_a_dataset():
    latents = Digits()
    images = DecodedImages(latents, Doubling())

    check_dataset(images)
    stored, labels = images.__getitems__([3, 5])
    assert images.latent_shape == (1, 16, 16)
    assert images.latent_scale == 1
    assert torch.equal(images.augment(stored, None)[..., ::2, ::2], latents.images[[3, 5]])
    assert torch.equal(labels, latents.labels[[3, 5]])
    assert len(images.held_out()) == len(latents.held_out())
    assert images.held_out().held_out() is None
