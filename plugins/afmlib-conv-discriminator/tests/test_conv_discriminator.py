"""Tests for afmlib_conv_discriminator."""

import pytest
import torch
from afmlib_conv_discriminator import StridedDiscriminator

from afmlib import build_discriminator, list_components
from afmlib.testing import check_discriminator


@pytest.mark.parametrize("use_timestep", [False, True])
@pytest.mark.parametrize(("size", "channels", "stages"), [(8, 1, 2), (4, 3, 1), (16, 2, 4)])
def test_contract(size, channels, stages, use_timestep):
    discriminator = StridedDiscriminator(
        size, channels, 10, channels=4, num_stages=stages, use_timestep=use_timestep
    )

    check_discriminator(discriminator, (channels, size, size), num_classes=10)


def test_found_by_name():
    assert list_components("discriminators")["StridedDiscriminator"] == "afmlib-conv-discriminator"
    built = build_discriminator("StridedDiscriminator", input_size=8, in_channels=1)
    assert isinstance(built, StridedDiscriminator)


def test_label_projection():
    discriminator = StridedDiscriminator(8, 1, 3)
    images = torch.randn(5, 1, 8, 8)
    table = discriminator.y_embedder.weight
    features = discriminator.layers(images).mean((2, 3))

    first, last = (discriminator(images, torch.full((5,), label)) for label in (0, 2))

    torch.testing.assert_close(last - first, features @ (table[2] - table[0]))


def test_time_matters_only_if_embedded():
    images, labels, times = torch.randn(5, 1, 8, 8), torch.zeros(5, dtype=torch.long), torch.rand(5)
    plain, timed = (StridedDiscriminator(8, 1, use_timestep=use) for use in (False, True))

    assert torch.equal(plain(images, labels, times), plain(images, labels))
    assert not torch.equal(timed(images, labels, times), timed(images, labels, times / 2))
    with pytest.raises(ValueError, match="embeds timesteps, which are missing"):
        timed(images, labels)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(input_size=8, in_channels=1, num_stages=4), "8 cannot be halved 4 times"),
        (dict(input_size=6, in_channels=1), "6 cannot be halved 2 times"),
        (dict(input_size=8, in_channels=1, channels=0), "at least 1"),
        (dict(input_size=8, in_channels=1, num_classes=0), "at least 1"),
    ],
)
def test_invalid_arguments_raise(arguments, message):
    with pytest.raises(ValueError, match=message):
        StridedDiscriminator(**arguments)
