"""Tests for afmlib.io.content_hash."""

import torch

from afmlib.io.content_hash import content_hash


def test_hash_depends_only_on_content():
    weights = {"a": torch.randn(2, 3), "b": torch.zeros(())}
    same = {"b": torch.zeros(()), "a": weights["a"].T.clone().T}

    assert content_hash(same) == content_hash(weights)
    assert len(content_hash(weights)) == 16


def test_any_change_shows():
    tensor = torch.arange(6.0).reshape(2, 3)
    changed = tensor.clone()
    changed[1, 2] += 1e-6
    variants = [
        {"a": tensor},
        {"b": tensor},
        {"a": changed},
        {"a": tensor.reshape(3, 2)},
        {"a": tensor.double()},
        {"a": tensor, "b": tensor},
    ]

    assert len({content_hash(variant) for variant in variants}) == len(variants)
