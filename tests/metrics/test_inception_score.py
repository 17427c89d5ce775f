"""Tests for afmlib.metrics.inception_score."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from afmlib.metrics.evaluation import EvaluationData
from afmlib.metrics.inception_score import InceptionScore

seeds = st.integers(0, 2**32 - 1)


def score(logits, splits=1, seed=0, part_size=None):
    metric = InceptionScore(splits, part_size)
    return metric(EvaluationData(outputs={"logits": logits}, seed=seed))


def oracle(logits):
    """Returns the score of one part by its definition, one probability after the other."""
    rows = []
    for row in logits.double().tolist():
        total = sum(math.exp(value) for value in row)
        rows.append([math.exp(value) / total for value in row])
    means = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    divergences = [
        sum(p * math.log(p / q) for p, q in zip(row, means, strict=True)) for row in rows
    ]
    return math.exp(sum(divergences) / len(rows))


@settings(max_examples=20)
@given(seeds, st.integers(1, 12), st.integers(2, 5))
def test_one_split_matches_the_definition(seed, num, classes):
    torch.manual_seed(seed)
    logits = 3 * torch.randn(num, classes)

    found = score(logits)

    assert found["inception_score"] == pytest.approx(oracle(logits), rel=1e-9)
    assert found["inception_score_std"] == 0
    assert 1 - 1e-9 <= found["inception_score"] <= classes + 1e-9


def test_splits_are_shuffled_and_equal():
    logits = torch.randn(40, 3)

    found, again, other = score(logits, 4), score(logits, 4), score(logits, 4, seed=1)

    assert found == again != other
    shares = [oracle(part) for part in torch.split(logits, 10)]
    assert found["inception_score"] == pytest.approx(sum(shares) / 4, rel=0.2)


def test_parts_in_order_match_adm():
    logits = torch.randn(25, 3)

    found = score(logits, part_size=10)

    shares = [oracle(part) for part in torch.split(logits, 10)]
    assert found["inception_score"] == pytest.approx(np.mean(shares), rel=1e-9)
    assert found["inception_score_std"] == pytest.approx(np.std(shares), rel=1e-9)
    with pytest.raises(ValueError, match="part_size must be at least 1, got 0"):
        InceptionScore(part_size=0)


def test_its_limits_are_reached():
    certain = 50 * torch.eye(5).repeat(20, 1)

    assert score(certain)["inception_score"] == pytest.approx(5)
    assert score(torch.zeros(100, 5))["inception_score"] == pytest.approx(1)
    assert score(certain[:1].repeat(100, 1))["inception_score"] == pytest.approx(1)
    # In the order of their labels, parts that are not shuffled would hold one class and score 1.
    assert score(50 * torch.eye(5).repeat_interleave(20, 0), 5)["inception_score"] > 3


def test_invalid_subsets_raise(judge, tensors, identity):
    with pytest.raises(ValueError, match="10 splits need as many samples, got 3"):
        score(torch.zeros(3, 2), splits=10)
    with pytest.raises(ValueError, match="splits must be at least 1, got 0"):
        InceptionScore(splits=0)
    data = tensors(torch.randn(20, 1, 2, 2))
    with pytest.raises(ValueError, match="Identity does not have logits, only features"):
        judge(InceptionScore(), data.images, data.labels, dataset=data, extractor=identity)
