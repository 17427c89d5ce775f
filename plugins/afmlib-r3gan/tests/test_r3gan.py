"""Tests for afmlib_r3gan."""

import pytest
import torch
from afmlib_r3gan import PRESETS, R3GANDiscriminator, R3GANGenerator
from afmlib_r3gan.blocks import ResidualBlock, stage_sizes, stage_width
from afmlib_r3gan.resampling import downsample, upsample
from torch import nn
from torch.nn.functional import leaky_relu

from afmlib import build_discriminator, build_generator, list_components
from afmlib.losses.gradient_penalty import AutogradPenalty
from afmlib.testing import check_discriminator, check_generator

SMALL = dict(channels=8, group_width=4)


@pytest.mark.parametrize(
    ("size", "channels", "classes"), [(8, 1, 3), (32, 3, 3), (4, 4, 3), (6, 2, 1)]
)
def test_contract(size, channels, classes):
    check_generator(R3GANGenerator(size, channels, classes, **SMALL))
    discriminator = R3GANDiscriminator(size, channels, classes, **SMALL)
    check_discriminator(discriminator, (channels, size, size), classes)


def test_found_by_name():
    assert list_components("generators")["R3GANGenerator"] == "afmlib-r3gan"
    assert list_components("discriminators")["R3GANDiscriminator"] == "afmlib-r3gan"
    sizes = dict(input_size=8, in_channels=1, **SMALL)
    assert isinstance(build_generator("R3GANGenerator", **sizes), R3GANGenerator)
    assert isinstance(build_discriminator("R3GANDiscriminator", **sizes), R3GANDiscriminator)


# Preset -> size, classes, and widths and numbers of groups of the stages from 4 x 4 upward, as in
# train.py of the public code.
PUBLISHED = {
    "cifar10": (32, 10, [768] * 4, [96] * 4),
    "ffhq64": (64, 1, [768] * 4 + [384], [96] * 4 + [48]),
    "ffhq256": (256, 1, [768] * 4 + [384, 192, 96], [96] * 4 + [48, 24, 12]),
    "imagenet32": (32, 1000, [1536] * 4, [96] * 4),
    "imagenet64": (64, 1000, [1536] * 5, [96] * 5),
}


def published_counts(classes, widths, groups):
    """Returns the parameters of both networks, layer by layer: only activations have biases."""
    shared = 3 * widths[-1] + 16 * widths[0]  # To or from RGB; the basis.
    for width, count in zip(widths, groups, strict=True):
        inner = 2 * width
        shared += 2 * (2 * width * inner + inner * (inner // count) * 9 + 2 * inner)
    shared += sum(a * b for a, b in zip(widths, widths[1:]) if a != b)  # noqa: B905, RUF007
    labels = classes > 1
    generator = shared + (64 + 64 * labels) * widths[0] + 64 * classes * labels
    return generator, shared + (widths[0] * (widths[0] + classes) if labels else widths[0])


@pytest.mark.parametrize("name", PUBLISHED)
def test_presets_have_the_published_sizes(name):
    size, classes, widths, groups = PUBLISHED[name]
    with torch.device("meta"):
        networks = [
            cls(size, 3, classes, **PRESETS[name]) for cls in (R3GANGenerator, R3GANDiscriminator)
        ]

    counts = tuple(sum(p.numel() for p in network.parameters()) for network in networks)
    assert counts == published_counts(classes, widths, groups)
    mixes = [m for m in networks[0].stages.modules() if isinstance(m, nn.Conv2d) and m.groups > 1]
    assert [mix.groups for mix in mixes[::2]] == groups


def test_width_halves_beyond_the_full_size():
    assert [stage_width(size, 768, 32) for size in (4, 32, 64, 256)] == [768, 768, 384, 96]


def test_embeddings_start_small():
    torch.manual_seed(0)
    generator, discriminator = (
        cls(8, 1, 100, channels=64) for cls in (R3GANGenerator, R3GANDiscriminator)
    )

    assert generator.y_embedder.weight.std().item() == pytest.approx(0.1, rel=0.05)
    assert discriminator.y_embedder.weight.std().item() == pytest.approx(0.1 / 8, rel=0.05)
    assert discriminator.y_embedder.weight.shape == (100, 64)


def test_stage_sizes():
    assert stage_sizes(8) == [4, 8]
    assert stage_sizes(48) == [6, 12, 24, 48]
    assert stage_sizes(2) == [2]


# --- Resampling -----------------------------------------------------------------------------------


def test_filter_is_one_three_three_one():
    """[1, 2, 1] convolved with [1, 1], as the public code builds it."""
    line = torch.tensor([1.0, 3.0, 3.0, 1.0])
    point = torch.zeros(1, 1, 8, 8)
    point[0, 0, 4, 4] = 1

    up, down = upsample(point)[0, 0], downsample(point)[0, 0]

    torch.testing.assert_close(up[7:11, 7:11], torch.outer(line, line) / 16)
    assert up.sum() == 4
    torch.testing.assert_close(down[1:3, 1:3], torch.outer(line[[0, 2]], line[[0, 2]]) / 64)
    assert down.sum() == 0.25


def test_upsampling_is_bilinear_inside():
    images = torch.randn(2, 3, 6, 6)

    expected = nn.functional.interpolate(images, scale_factor=2, mode="bilinear")

    torch.testing.assert_close(upsample(images)[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1])


def test_resampling_pads_with_zeros():
    ones = torch.ones(1, 1, 6, 6)
    edge, corner = 0.75, 0.75**2

    up, down = upsample(ones)[0, 0], downsample(ones)[0, 0]

    assert (up[0, 0], up[0, 5], up[5, 5]) == (corner, edge, 1)
    assert (down[0, 0], down[0, 1], down[1, 1]) == ((7 / 8) ** 2, 7 / 8, 1)


def test_downsampling_is_transposed_upsampling():
    small, large = torch.randn(1, 1, 8, 8), torch.randn(1, 1, 16, 16)

    both = (upsample(small) * large).sum(), 4 * (small * downsample(large)).sum()

    torch.testing.assert_close(*both)


# --- Blocks ---------------------------------------------------------------------------------------


def test_block_matches_formula_and_starts_as_identity():
    torch.manual_seed(0)
    block, images = ResidualBlock(8, 2, 4, num_blocks=3), torch.randn(2, 8, 4, 4)
    assert torch.equal(block(images), images)

    nn.init.normal_(block.narrow.weight)
    wide = torch.einsum("oi,nihw->nohw", block.widen.weight[:, :, 0, 0], images)
    groups = [
        nn.functional.conv2d(part, weight, padding=1)  # Each group sees its own channels.
        for part, weight in zip(
            leaky_relu(wide, 0.2).split(4, 1), block.mix.weight.split(4, 0), strict=True
        )
    ]
    mixed = leaky_relu(torch.cat(groups, 1), 0.2)
    narrow = torch.einsum("oi,nihw->nohw", block.narrow.weight[:, :, 0, 0], mixed)

    torch.testing.assert_close(block(images), images + narrow)


def test_deeper_networks_start_with_smaller_weights():
    torch.manual_seed(0)
    stds = [ResidualBlock(64, 2, 16, num_blocks=n).widen.weight.std().item() for n in (1, 16)]

    assert stds[0] == pytest.approx((2 / 1.04 / 64) ** 0.5, rel=0.05)
    assert stds[1] == pytest.approx(stds[0] / 2, rel=0.05)


def test_no_normalization_layers():
    for network in (R3GANGenerator(8, 1, **SMALL), R3GANDiscriminator(8, 1, **SMALL)):
        kinds = {type(module).__name__ for module in network.modules()}
        assert not [kind for kind in kinds if "Norm" in kind]
        assert not list(network.buffers())


# --- Networks -------------------------------------------------------------------------------------


def test_generator_uses_only_first_noise_entries():
    generator, labels = R3GANGenerator(8, 1, **SMALL, noise_size=10), torch.tensor([0])
    noise = torch.randn(1, 1, 8, 8, requires_grad=True)

    generator(noise, labels).square().sum().backward()

    read = noise.grad.flatten() != 0
    assert read[:10].all()
    assert not read[10:].any()


def test_class_changes_image_and_logit():
    generator, discriminator = (
        cls(8, 1, 2, **SMALL) for cls in (R3GANGenerator, R3GANDiscriminator)
    )
    noises = torch.randn(1, 1, 8, 8).expand(2, -1, -1, -1)

    one, other = generator(noises, torch.tensor([0, 1]))
    assert not torch.allclose(one, other)
    first, second = discriminator(noises, torch.tensor([0, 1]))
    assert first != second


def test_label_projection():
    discriminator, images = R3GANDiscriminator(8, 1, 3, **SMALL), torch.randn(4, 1, 8, 8)
    labels = torch.tensor([0, 1, 2, 1])
    before = discriminator(images, labels)

    with torch.no_grad():
        discriminator.y_embedder.weight[1] *= -2

    factors = torch.tensor([1.0, -2.0, 1.0, -2.0])
    torch.testing.assert_close(discriminator(images, labels), factors * before)


def test_autograd_penalty_has_gradients():
    torch.manual_seed(0)
    discriminator, labels = R3GANDiscriminator(8, 1, 3, **SMALL), torch.arange(3)
    images = torch.randn(3, 1, 8, 8)

    slopes = AutogradPenalty()(lambda x: discriminator(x, labels), images, None, None)
    slopes.sum().backward()

    assert (slopes > 0).all()
    assert discriminator.input.weight.grad.isfinite().all()
    assert discriminator.input.weight.grad.any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(channels=0), "channels must be at least 1, got 0"),
        (dict(num_classes=0), "num_classes must be at least 1, got 0"),
        (dict(channels=9), r"group_width 16 does not divide .* 2 \* 9 at the size 4"),
        (dict(full_width_size=0), "full_width_size must be at least 1, got 0"),
    ],
)
def test_invalid_arguments_raise(arguments, message):
    for network in (R3GANGenerator, R3GANDiscriminator):
        with pytest.raises(ValueError, match=message):
            network(8, 1, **arguments)
    with pytest.raises(ValueError, match="noise_size"):
        R3GANGenerator(8, 1, noise_size=0)
