"""Tests for afmlib.metrics.nearest_training_image."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from afmlib.metrics.evaluation import EvaluationData
from afmlib.metrics.nearest_training_image import NearestTrainingImage


def test_training_images_have_distance_zero(digits, judge):
    held_out = digits.held_out()

    copies = judge(NearestTrainingImage(), digits.images, digits.labels)
    others = judge(NearestTrainingImage(), held_out.images, held_out.labels)

    assert copies == {"nearest_training_image": 0}
    assert 0.2 < others["nearest_training_image"] < 0.3


@given(st.integers(0, 2**32 - 1), st.integers(1, 9))
def test_nearest_distance_matches_all_pairs(tensors, seed, batch_size):
    torch.manual_seed(seed)
    data, samples = tensors(torch.randn(9, 1, 2, 3)), torch.randn(4, 1, 2, 3)
    distances = (samples.unsqueeze(1) - data.images).square().mean((2, 3, 4)).sqrt()  # (4, 9)

    value = NearestTrainingImage()(
        EvaluationData(
            samples=samples,
            labels=torch.zeros(4, dtype=torch.long),
            dataset=data,
            batch_size=batch_size,
        )
    )

    assert value["nearest_training_image"] == pytest.approx(
        distances.amin(1).mean().item(), abs=1e-6
    )


def test_offset_in_units_of_images(digits, judge):
    value = judge(NearestTrainingImage(), digits.images + 1e-4, digits.labels)

    assert value["nearest_training_image"] == pytest.approx(1e-4, rel=1e-2)
