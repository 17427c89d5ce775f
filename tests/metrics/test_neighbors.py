"""Tests for afmlib.metrics.neighbors and afmlib.metrics.adm_neighbors, against float64."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from afmlib.metrics import adm_neighbors, neighbors

seeds = st.integers(0, 2**32 - 1)


def distances(rows, others):
    return (rows.double()[:, None] - others.double()[None]).square().sum(2)


def radii(rows, k):
    return distances(rows, rows).kthvalue(k + 1).values


def covered(rows, centers, radii):
    return (distances(rows, centers) <= radii * (1 + 1e-12)).any(1)


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    monkeypatch.setattr(neighbors, "TILE", 50)
    monkeypatch.setattr(neighbors, "PAIRS", 20)
    monkeypatch.setattr(neighbors, "SPARE", 2)


@given(seeds, st.integers(1, 3), st.integers(1, 6), st.sampled_from([0, 1e2, 1e6]))
def test_float64_decides(seed, k, dim, offset):
    # Far from the origin, all float32 distances are rounding errors.
    torch.manual_seed(seed)
    samples = 1.2 * torch.randn(17, dim, dtype=torch.float64) + offset
    real = torch.randn(11, dim, dtype=torch.float64) + offset

    expected = radii(real, k)
    found = neighbors.squared_radii(real, k)

    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    assert torch.equal(
        neighbors.in_balls(samples, real, expected), covered(samples, real, expected)
    )


@given(seeds, st.integers(1, 3))
def test_ties_and_copies(seed, k):
    torch.manual_seed(seed)
    rows = torch.randint(3, (40, 3)).float()  # Many equal rows and equal distances.
    samples = torch.randint(4, (25, 3)).float()

    found = neighbors.squared_radii(rows, k)

    assert torch.equal(found, radii(rows, k))
    assert torch.equal(neighbors.in_balls(samples, rows, found), covered(samples, rows, found))


def test_differences_below_float32():
    rows = torch.tensor([[0.0], [1.0], [1.0 + 1e-9], [3.0]], dtype=torch.float64)

    found = neighbors.squared_radii(rows, k=2)

    torch.testing.assert_close(found, radii(rows, 2), rtol=1e-12, atol=0)
    unit = torch.tensor([1.0])
    points = torch.tensor([[1.0 - 1e-9], [1.0 + 1e-9]], dtype=torch.float64)
    assert neighbors.in_balls(points, rows[:1], unit).tolist() == [True, False]


@given(seeds, st.sampled_from([1.0, 1e3]))
def test_adm_rounds_to_float16(seed, scale):
    # Squares of 1e3 overflow float16, so float32 is used.
    torch.manual_seed(seed)
    rows, others = scale * torch.randn(9, 4), scale * torch.randn(12, 4)
    dtype = torch.float16 if scale == 1 else torch.float32

    norms, other_norms = (x.to(dtype).square().float().sum(1).to(dtype) for x in (rows, others))
    products = (rows.to(dtype).double() @ others.to(dtype).double().T).to(dtype)
    expected = (norms[:, None] - 2 * products + other_norms).clamp_min(0).float()
    unit = expected.median()
    inside = (expected <= unit).any(1)

    found = adm_neighbors.in_balls(rows, others, unit.expand(12))

    assert (found == inside).float().mean() > 0.8  # A sum in another order may round differently.
    exact = radii(others, 3).float()
    torch.testing.assert_close(
        adm_neighbors.squared_radii(others, 3), exact, rtol=2e-2, atol=2e-2 * scale**2
    )
