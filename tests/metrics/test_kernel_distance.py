"""Tests for afmlib.metrics.kernel_distance."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from afmlib.metrics.evaluation import EvaluationData
from afmlib.metrics.kernel_distance import KernelDistance

seeds = st.integers(0, 2**32 - 1)


def oracle(rows, real):
    """Returns the distance of two whole sets by its definition, one pair after the other."""

    def kernel(a, b):
        return (sum(x * y for x, y in zip(a, b, strict=True)) / len(a) + 1) ** 3

    def within(points):
        pairs = [kernel(a, b) for i, a in enumerate(points) for j, b in enumerate(points) if i != j]
        return sum(pairs) / len(pairs)

    across = [kernel(a, b) for a in rows for b in real]
    return within(rows) + within(real) - 2 * sum(across) / len(across)


@pytest.fixture
def distance(tensors, identity):
    def measure(rows, real, seed=0, **options):
        shape = (len(rows), -1, 1, 1)
        evaluation = EvaluationData(
            samples=rows.reshape(shape),
            dataset=tensors(real.reshape(len(real), -1, 1, 1)),
            extractor=identity,
            seed=seed,
        )
        return KernelDistance(**options)(evaluation)

    return measure


@settings(max_examples=10)
@given(seeds, st.integers(2, 8), st.integers(1, 4))
def test_full_subset_matches_the_definition(seed, num, dim):
    torch.manual_seed(seed)
    rows, real = torch.randn(2, num, dim, dtype=torch.float64)
    evaluation = EvaluationData(outputs={"features": rows})
    evaluation.real_output = lambda output: real  # No images lie behind these.

    found = KernelDistance(subsets=1, subset_size=num)(evaluation)

    expected = oracle(rows.tolist(), real.tolist())
    assert found["kernel_distance"] == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_subset_mean_is_close_and_repeats(distance):
    rows, real = torch.randn(60, 3), torch.randn(60, 3) + 1
    whole = distance(rows, real, subsets=1, subset_size=60)["kernel_distance"]

    first, again, other = (
        distance(rows, real, seed=seed, subsets=50, subset_size=30) for seed in (0, 0, 1)
    )

    assert first == again != other
    assert first["kernel_distance"] == pytest.approx(whole, rel=0.2)
    assert first["kernel_distance_std"] > 0


def test_equal_distributions_are_unbiased(distance):
    rows, real = torch.randn(2, 400, 2)

    found = distance(rows, real, subsets=100, subset_size=40)

    assert abs(found["kernel_distance"]) < 0.3  # With the pairs of a point and itself, 0.6.
    assert distance(rows + 1, real, subsets=10, subset_size=40)["kernel_distance"] > 1


def test_invalid_subsets_raise(distance):
    with pytest.raises(ValueError, match="got 5 and 9: decrease subset_size"):
        distance(torch.randn(5, 2), torch.randn(9, 2))
    for options in (dict(subsets=0), dict(subset_size=1)):
        with pytest.raises(ValueError, match="must be at least 1 and subset_size at least 2"):
            KernelDistance(**options)
