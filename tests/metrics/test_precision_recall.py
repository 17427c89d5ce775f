"""Tests for afmlib.metrics.precision_recall."""

import pytest
import torch

from afmlib.metrics.precision_recall import PrecisionRecall


def oracle(samples, real, k):
    """Returns precision and recall by their definition, one distance after the other."""

    def covered(points, centres):
        radii = [sorted((c - o).norm().item() for o in centres)[k] for c in centres]
        inside = [
            any((p - c).norm() <= r + 1e-9 for c, r in zip(centres, radii, strict=True))
            for p in points
        ]
        return sum(inside) / len(points)

    return covered(samples, real), covered(real, samples)


@pytest.mark.parametrize("k", [1, 3])
def test_values_match_the_definition(tensors, identity, judge, k):
    torch.manual_seed(k)
    data, samples = tensors(torch.randn(20, 3)), 1.5 * torch.randn(15, 3)
    labels = torch.zeros(15, dtype=torch.long)

    values = judge(PrecisionRecall(k), samples, labels, dataset=data, extractor=identity)

    precision, recall = oracle(samples.double(), data.images.double(), k)
    assert values["precision"] == pytest.approx(precision)
    assert values["recall"] == pytest.approx(recall)
    assert 0 < precision < 1 or 0 < recall < 1


def test_real_images_and_copies(digits, judge):
    images, labels = digits.images, digits.labels

    assert judge(PrecisionRecall(), images, labels) == {"precision": 1.0, "recall": 1.0}
    copies = judge(PrecisionRecall(), images[:1].expand(20, -1, -1, -1), labels[:1].expand(20))
    assert copies["precision"] == 1.0
    assert copies["recall"] < 0.01


def test_too_few_samples_raise(digits, judge):
    with pytest.raises(ValueError, match="more than 3 samples and real images, got 3 and 1437"):
        judge(PrecisionRecall(), digits.images[:3], digits.labels[:3])
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        PrecisionRecall(k=0)
