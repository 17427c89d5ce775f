"""Tests for afmlib.networks.conv."""

import pytest
import torch

from afmlib.losses.gradient_penalty import AutogradPenalty
from afmlib.networks.conv import ConvDiscriminator
from afmlib.nn.blocks import checkpoint_blocks

TINY = dict(input_size=8, in_channels=2, num_classes=3, widths=[8, 16], layers_per_block=1)


def test_label_is_projected():
    discriminator = ConvDiscriminator(**TINY)
    images, table = torch.randn(5, 2, 8, 8), discriminator.y_embedder.embedding_table.weight
    features = []
    discriminator.head.register_forward_pre_hook(lambda _, given: features.append(given[0]))

    first, last = (discriminator(images, torch.full((5,), label)) for label in (0, 2))

    torch.testing.assert_close(last - first, features[0] @ (table[2] - table[0]))


def test_time_changes_the_features():
    discriminator = ConvDiscriminator(**TINY, use_timestep=True)
    images, labels, times = torch.randn(5, 2, 8, 8), torch.zeros(5, dtype=torch.long), torch.rand(5)
    discriminator.y_embedder.embedding_table.weight.data.zero_()

    assert not torch.equal(
        discriminator(images, labels, times), discriminator(images, labels, times / 2)
    )
    with pytest.raises(ValueError, match="embeds timesteps, which are missing"):
        discriminator(images, labels)


@pytest.mark.usefixtures("float64")
def test_gradient_of_the_penalty_matches_its_difference():
    discriminator, labels = ConvDiscriminator(**TINY), torch.arange(3)
    images, weight = torch.randn(3, 2, 8, 8), discriminator.blocks[1].conv1.weight

    def penalty():
        def critic(x):
            return discriminator(x, labels)

        return AutogradPenalty()(critic, images.clone(), critic(images), images).sum()

    (gradient,) = torch.autograd.grad(penalty(), weight)
    change, values = torch.randn_like(weight), []
    for step in (1e-6, -2e-6):
        weight.data += step * change
        values.append(penalty().item())
    expected = (values[0] - values[1]) / 2e-6

    assert (gradient * change).sum().item() == pytest.approx(expected, rel=1e-6)


def test_checkpointed_blocks_have_the_same_gradients():
    discriminator, images = ConvDiscriminator(**TINY), torch.randn(3, 2, 8, 8)
    gradients = []
    for _ in range(2):
        discriminator.zero_grad()
        discriminator(images, torch.arange(3)).sum().backward()
        gradients.append([parameter.grad for parameter in discriminator.parameters()])
        checkpoint_blocks(discriminator)

    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(input_size=6, widths=[8, 8, 8]), "6 cannot be halved 2 times: give fewer widths"),
        (dict(widths=[8, 6]), r"multiples of 4, one per level, got \[8, 6\]"),
        (dict(widths=[]), r"one per level, got \[\]"),
        (dict(num_classes=0), "at least 1"),
        (dict(class_dropout_prob=2.0), r"class_dropout_prob must be in \[0, 1\]"),
    ],
)
def test_invalid_arguments_raise(arguments, message):
    with pytest.raises(ValueError, match=message):
        ConvDiscriminator(**TINY | arguments)
