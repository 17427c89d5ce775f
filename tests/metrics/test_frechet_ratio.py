"""Tests for afmlib.metrics.frechet_ratio."""

import pytest
import torch

from afmlib.metrics.frechet_distance import frechet_distance
from afmlib.metrics.frechet_ratio import FrechetRatio


def test_ratio_in_two_representations(digits, digits_extractor, identity, judge):
    held_out = digits.held_out()
    images, labels = held_out.images, held_out.labels
    metric = FrechetRatio([digits_extractor, identity])

    same = judge(metric, images, labels, held_out=held_out)
    blurred = judge(metric, images + 0.3, labels, held_out=held_out)
    without = judge(metric, images, labels)

    assert same["frechet_ratio"] == pytest.approx(1)
    real = digits.images.flatten(1)
    moved, held = (frechet_distance(x.flatten(1), real) for x in (images + 0.3, images))
    assert blurred["frechet_distance_in_identity"] == pytest.approx(moved, rel=1e-6)
    assert blurred["frechet_ratio_in_identity"] == pytest.approx(moved / held, rel=1e-6)
    in_digits = blurred["frechet_ratio_in_digits"]
    assert blurred["frechet_ratio"] == pytest.approx((moved / held + in_digits) / 2, rel=1e-6)
    assert without == {name: value for name, value in same.items() if "distance" in name}


def test_representations_must_differ(identity):
    for given in ([], [identity, identity]):
        with pytest.raises(ValueError, match="representations must be different extractors"):
            FrechetRatio(given)


def test_kept_features_are_used(digits, identity, judge):
    rows = torch.randn(20, 64)
    outputs = {"features of identity": rows}

    found = judge(FrechetRatio([identity]), None, None, outputs=outputs)

    expected = frechet_distance(rows, digits.images.flatten(1))
    assert found["frechet_distance_in_identity"] == pytest.approx(expected, rel=1e-6)
