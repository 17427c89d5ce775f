"""Tests for afmlib.testing.derivatives: broken operators are noticed and named."""

import pytest
import torch

from afmlib.interfaces import DirectionalDerivative
from afmlib.testing import check_directional_derivative


class Exact(DirectionalDerivative):
    @torch.no_grad()
    def __call__(self, function, points, directions):
        return torch.func.jvp(function, tuple(points), tuple(directions))[1]


class NeedsMagic(Exact):
    requires = frozenset({"magic"})


class Doubles(Exact):
    def __call__(self, function, points, directions):
        return 2 * super().__call__(function, points, directions)


class KeepsTheGraph(DirectionalDerivative):
    def __call__(self, function, points, directions):
        return torch.func.jvp(function, tuple(points), tuple(directions))[1]


class ForgetsATime(Exact):
    def __call__(self, function, points, directions):
        still = [torch.zeros_like(way) for way in directions[1:]]
        return super().__call__(function, points, [directions[0], *still])


class LosesPrecision(Exact):
    def __call__(self, function, points, directions):
        return super().__call__(function, points, directions).float()


class DifferentMasks(DirectionalDerivative):
    @torch.no_grad()
    def __call__(self, function, points, directions):
        steps = list(zip(points, directions, strict=True))
        ahead = function(*(point + 1e-3 * way for point, way in steps))
        return (ahead - function(*(point - 1e-3 * way for point, way in steps))) / 2e-3


@pytest.mark.parametrize(
    ("broken", "contract"),
    [
        (NeedsMagic, "requires names capabilities"),
        (Doubles, "the JVP with the directions"),
        (KeepsTheGraph, "without a graph"),
        (ForgetsATime, "the JVP with the directions"),
        (LosesPrecision, "shape and dtype"),
        (DifferentMasks, "dropout masks do not change"),
    ],
)
def test_broken_derivatives(broken, contract):
    with pytest.raises(AssertionError, match=f"{broken.__name__}: .*{contract}"):
        check_directional_derivative(broken())


def test_valid_derivatives_pass():
    check_directional_derivative(Exact())
