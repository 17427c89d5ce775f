"""Tests for afmlib.metrics.spatial_frechet_distance."""

import numpy as np
import pytest
import scipy.linalg
import torch

from afmlib.interfaces import FeatureExtractor
from afmlib.metrics.frechet_distance import FrechetDistance
from afmlib.metrics.spatial_frechet_distance import SpatialFrechetDistance


def oracle(rows, real):
    """Returns the distance of two sets of rows by NumPy and SciPy alone."""
    means = [part.mean(0) for part in (rows, real)]
    covariances = [np.cov(part, rowvar=False) for part in (rows, real)]
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    traces = sum(np.trace(covariance) for covariance in covariances) - 2 * np.trace(root)
    return ((means[0] - means[1]) ** 2).sum() + traces


def test_spatial_features_are_compared(digits, digits_extractor, judge):
    held_out = digits.held_out()
    samples = (held_out.images + 0.3 * torch.randn(held_out.images.shape)).clamp(-1, 1)
    rows, real = (
        digits_extractor.extract(images)["spatial"].double().numpy()
        for images in (samples, digits.images)
    )

    found = judge(SpatialFrechetDistance(), samples, held_out.labels)

    assert found == {"spatial_frechet_distance": pytest.approx(oracle(rows, real), rel=1e-5)}


def test_shift_is_noticed(tensors, judge):
    images = torch.zeros(200, 1, 4, 8)
    images[:, :, 1:3, :3] = torch.rand(200, 1, 2, 3)
    data = tensors(images)
    run = lambda metric, samples: judge(
        metric, samples, data.labels, dataset=data, extractor=Pooling()
    )

    moved = torch.roll(images, 4, 3)

    assert run(FrechetDistance(), moved)["frechet_distance"] == pytest.approx(0, abs=1e-9)
    assert run(SpatialFrechetDistance(), moved)["spatial_frechet_distance"] > 0.1


class Pooling(FeatureExtractor):
    """The mean of an image, and its columns."""

    name = "pooling"
    outputs = frozenset({"features", "spatial"})

    def forward(self, images):
        return images.mean((2, 3))

    def extract(self, images):
        return {"features": self(images), "spatial": images.mean(2).flatten(1)}
