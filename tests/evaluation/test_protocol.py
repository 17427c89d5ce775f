"""Tests for afmlib.evaluation.protocol."""

import dataclasses
import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from afmlib.evaluation.protocol import EvalProtocol, balanced_labels

PROTOCOL = EvalProtocol(extractor="digits-1", metrics=("FrechetDistance",), num_samples=360, nfe=1)

numbers = st.integers(1, 200)
seeds = st.integers(0, 2**32)


@given(numbers, numbers, seeds)
def test_labels_are_balanced_to_one(num_samples, num_classes, seed):
    counts = torch.bincount(balanced_labels(num_samples, num_classes, seed), minlength=num_classes)

    assert len(counts) == num_classes
    assert counts.sum() == num_samples
    assert counts.max() - counts.min() <= 1


def test_label_order_follows_the_seed():
    labels = balanced_labels(100, 10, seed=3)
    torch.manual_seed(7)

    assert torch.equal(labels, balanced_labels(100, 10, seed=3))
    assert not torch.equal(labels, balanced_labels(100, 10, seed=4))
    assert not torch.equal(labels, labels.sort().values)


@pytest.mark.parametrize(("num_samples", "num_classes"), [(0, 10), (10, 0)])
def test_there_must_be_labels(num_samples, num_classes):
    with pytest.raises(ValueError, match="must be positive"):
        balanced_labels(num_samples, num_classes, seed=0)


def test_a_record_survives_json():
    again = EvalProtocol(**json.loads(json.dumps(PROTOCOL.as_dict())))

    assert again == PROTOCOL
    assert hash(again) == hash(PROTOCOL)


@pytest.mark.parametrize(
    "change",
    [
        dict(extractor="digits-2"),
        dict(metrics=("PrecisionRecall",)),
        dict(num_samples=1000),
        dict(seed=1),
        dict(nfe=2),
        dict(reference="other"),
        dict(autoencoder="other"),
        dict(round_images=True),
        dict(version=99),
    ],
)
def test_any_difference_keeps_numbers_apart(change):
    assert dataclasses.replace(PROTOCOL, **change).as_dict() != PROTOCOL.as_dict()
    assert dataclasses.replace(PROTOCOL, **change) != PROTOCOL
