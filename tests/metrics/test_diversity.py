"""Tests for afmlib.metrics.diversity."""

import pytest
import torch

from afmlib.metrics.diversity import Diversity


def test_real_images_and_class_means(digits, judge):
    images, labels = digits.images, digits.labels
    means = torch.stack([images[labels == label].mean(0) for label in range(10)])

    assert judge(Diversity(), images, labels)["diversity"] == pytest.approx(1)
    assert judge(Diversity(), means[labels], labels)["diversity"] == 0
    held_out = digits.held_out()
    assert judge(Diversity(), held_out.images, held_out.labels)["diversity"] == pytest.approx(
        1, abs=0.05
    )


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_diversity_is_proportional_to_spread(digits, judge, factor):
    moved = factor * digits.images + 3

    assert judge(Diversity(), moved, digits.labels)["diversity"] == pytest.approx(factor)


def test_classes_count_equally(tensors, judge):
    real = tensors(
        torch.tensor([0.0, 1, 0, 3, 5, 6]).reshape(6, 1), torch.tensor([0, 0, 1, 1, 2, 2])
    )
    samples = torch.tensor([0.0, 2, 0, 2, 0, 6, 9]).reshape(7, 1)
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 2])

    # Of class 0, four of six pairs are 2 apart; of class 1, the pair is 6 apart.
    expected = (2 * 4 / 6 + 6) / (1 + 3)
    assert judge(Diversity(), samples, labels, dataset=real)["diversity"] == pytest.approx(expected)


def test_single_samples_are_too_few(digits, judge):
    with pytest.raises(ValueError, match="two samples"):
        judge(Diversity(), digits.images[:3], torch.arange(3))
    with pytest.raises(ValueError, match="max_per_class must be at least 2, got 1"):
        Diversity(max_per_class=1)
