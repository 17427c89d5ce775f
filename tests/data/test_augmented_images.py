"""Tests for afmlib.data.augmented_images."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from afmlib.augmentation.affine import affine_warp
from afmlib.data.augmented_images import NUMBERS, AugmentedImages
from afmlib.data.digits import Digits
from afmlib.data.points import EightGaussians
from afmlib.interfaces import Dataset
from afmlib.ops.drawing import uniforms


class Mirrored(Dataset):
    """Squares of 6 pixels that are mirrored if their draw says so."""

    latent_shape = (2, 6, 6)
    num_classes = 1
    class_names = ("image",)

    def __init__(self):
        self.moved_to = None

    def __len__(self):
        return 10

    def __getitems__(self, indices):
        images = torch.rand(10, 2, 6, 6, generator=torch.Generator().manual_seed(0)) * 2 - 1
        return images[list(indices)], torch.zeros(len(indices), dtype=torch.long)

    def draw(self, size, generator):
        return uniforms((size, 1), generator)

    def augment(self, stored, draws):
        return (
            stored if draws is None else torch.where(draws[..., None, None] < 0.5, -stored, stored)
        )

    def to(self, device):
        self.moved_to = device
        return self


def draws_of(images, seed):
    stored, _ = images.__getitems__(range(10))
    return stored, images.draw(10, torch.Generator().manual_seed(seed))


@given(st.integers(0, 2**32 - 1), st.floats(0, 1), st.floats(0, 180), st.floats(0, 1))
def test_images_are_changed_independently(seed, p, degrees, shift):
    images = AugmentedImages(Mirrored(), p, degrees, shift, scale=(0.5, 2.0))
    stored, draws = draws_of(images, seed)

    changed = images.augment(stored, draws)

    plain = images.images.augment(stored, draws[:, :1])
    for row in range(10):
        whether, angle, scale, right, down = draws[row, 1:].unbind()
        expected = affine_warp(
            plain[row : row + 1],
            degrees * (2 * angle[None] - 1),
            0.5 + 1.5 * scale[None],
            6 * shift * (2 * right[None] - 1),
            6 * shift * (2 * down[None] - 1),
        )
        expected = expected[0] if whether < p else plain[row]
        torch.testing.assert_close(changed[row], expected)


@given(st.integers(0, 2**32 - 1))
def test_draws_of_the_images_are_unchanged(seed):
    images = AugmentedImages(Mirrored(), probability=0.0)
    stored, draws = draws_of(images, seed)

    own = images.images.draw(10, torch.Generator().manual_seed(seed))

    assert draws.shape == (10, 1 + NUMBERS)
    assert torch.equal(draws[:, :1], own)
    assert torch.equal(images.augment(stored, draws), images.images.augment(stored, own))


def test_share_of_changed_images():
    images = AugmentedImages(Digits())
    stored, _ = images.__getitems__(range(1437))
    draws = images.draw(1437, torch.Generator().manual_seed(0))

    changed = (images.augment(stored, draws) != stored).flatten(1).any(1).double().mean()

    assert abs(changed - 0.8) < 4 * (0.8 * 0.2 / 1437) ** 0.5


def test_images_are_shrunk_after_the_change():
    """A ramp stays a ramp but for what is near the border."""
    images = AugmentedImages(Mirrored(), size=3)
    ramp = torch.arange(6.0).expand(1, 2, 6, 6)

    (shrunk,) = images.augment(ramp, None)

    assert images.latent_shape == (2, 3, 3)
    torch.testing.assert_close(shrunk[..., 1], torch.full((2, 3), 2.5))
    assert images.augment(*draws_of(images, 0)).shape == (10, 2, 3, 3)


def test_unaugmented_images_are_unchanged():
    images = AugmentedImages(Digits(), probability=1.0)
    stored, labels = images.__getitems__([3, 5])
    kept = images.held_out()
    test, test_labels = kept.__getitems__([3, 5])

    assert torch.equal(images.augment(stored, None), images.images.images[[3, 5]])
    assert torch.equal(labels, images.images.labels[[3, 5]])
    assert len(kept) == 360
    assert torch.equal(kept.augment(test, kept.draw(2, torch.Generator())), test)
    assert torch.equal(test_labels, Digits("test").labels[[3, 5]])
    assert kept.held_out() is None
    assert AugmentedImages(Digits(), size=4).held_out().latent_shape == (1, 4, 4)


def test_the_images_are_moved():
    images = Mirrored()

    assert isinstance(AugmentedImages(images).to(torch.device("meta")), AugmentedImages)
    assert images.moved_to == torch.device("meta")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(probability=1.1), r"probability must be in \[0, 1\], got 1.1"),
        (dict(degrees=-1.0), r"degrees must be in \[0, 180\], got -1.0"),
        (dict(shift=2.0), r"shift must be in \[0, 1\], got 2.0"),
        (dict(scale=(0.0, 1.0)), r"scale must be a range 0 < low <= high, got \[0.0, 1.0\]"),
        (dict(scale=(1.3, 1.0)), r"scale must be a range 0 < low <= high, got \[1.3, 1.0\]"),
        (dict(scale=(1.0,)), r"scale must be a range 0 < low <= high, got \[1.0\]"),
        (dict(size=9), r"size must be in \[1, 8\], got 9"),
        (dict(size=0), r"size must be in \[1, 8\], got 0"),
    ],
)
def test_arguments_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        AugmentedImages(Digits(), **options)


def test_points_and_latents_raise():
    with pytest.raises(ValueError, match=r"the samples of EightGaussians are points"):
        AugmentedImages(EightGaussians(num_samples=8))
    latents = Mirrored()
    latents.latent_scale = 0.2
    with pytest.raises(ValueError, match=r"the samples of Mirrored are latents of shape"):
        AugmentedImages(latents)
