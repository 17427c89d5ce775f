"""Tests for afmlib.metrics.evaluation."""

import pytest
import torch

from afmlib.metrics.evaluation import EvaluationData, read_images


def labels_of(samples):
    return torch.zeros(len(samples), dtype=torch.long)


def test_real_features_are_cached(tensors, identity):
    data, samples = tensors(torch.randn(5, 1, 2, 2)), torch.randn(3, 1, 2, 2)

    for _ in range(2):
        evaluation = EvaluationData(
            samples=samples, labels=labels_of(samples), dataset=data, extractor=identity
        )
        assert torch.equal(evaluation.real_features, data.images.flatten(1))
        assert evaluation.real_features is evaluation.real_features

    assert identity.calls == 1
    assert torch.equal(evaluation.sample_features, samples.flatten(1))
    assert evaluation.sample_features is evaluation.sample_features
    assert identity.calls == 2


def test_batches_change_nothing(tensors, identity):
    data = tensors(torch.randn(7, 1, 2, 2))

    evaluation = EvaluationData(
        samples=data.images, labels=data.labels, dataset=data, extractor=identity, batch_size=3
    )

    assert torch.equal(evaluation.sample_features, data.images.flatten(1))
    assert torch.equal(evaluation.real_images()[0], data.images)


def test_subset_of_images_is_fixed(tensors):
    data = tensors(torch.arange(50.0).reshape(50, 1))

    first, again = (torch.cat([x for x, _ in read_images(data, 4, limit=10)]) for _ in range(2))

    assert torch.equal(first, again)
    assert len(first.unique()) == 10
    assert torch.equal(torch.cat([x for x, _ in read_images(data, 4, limit=60)]), data.images)


def test_inconsistent_arrays_raise(tensors):
    data = tensors(torch.randn(5, 2))
    with pytest.raises(ValueError, match="'samples': 5, 'labels': 4"):
        EvaluationData(samples=data.images, labels=data.labels[:4], dataset=data)
    with pytest.raises(ValueError, match="'noises': 3"):
        EvaluationData(
            samples=data.images, labels=data.labels, dataset=data, noises=torch.ones(3, 2)
        )
    with pytest.raises(ValueError, match="'samples': 0"):
        EvaluationData(samples=data.images[:0], labels=data.labels[:0], dataset=data)
    broken = data.images.clone()
    broken[2, 1] = float("nan")
    with pytest.raises(ValueError, match="1 of 5 samples are not finite"):
        EvaluationData(samples=broken, labels=data.labels, dataset=data)


def test_features_need_an_extractor(tensors):
    data = tensors(torch.randn(5, 2))

    with pytest.raises(ValueError, match=r"set evaluation\.extractor"):
        _ = EvaluationData(samples=data.images, labels=data.labels, dataset=data).sample_features
