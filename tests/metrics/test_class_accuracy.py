"""Tests for afmlib.metrics.class_accuracy."""

import pytest
import torch

from afmlib.metrics.class_accuracy import ClassAccuracy


def test_held_out_digits_and_shuffled_labels(digits, judge):
    held_out = digits.held_out()

    right = judge(ClassAccuracy(), held_out.images, held_out.labels)["class_accuracy"]
    wrong = judge(ClassAccuracy(), held_out.images, (held_out.labels + 1) % 10)["class_accuracy"]

    assert right > 0.97
    assert wrong < 0.03


def test_accuracy_is_a_fraction_of_samples(tensors, judge):
    images = torch.tensor([[0.0], [1.0]]).repeat(10, 1)
    data = tensors(images, torch.tensor([0, 1]).repeat(10))
    samples, labels = torch.tensor([[0.1], [0.9], [0.2], [0.0]]), torch.tensor([0, 1, 0, 1])

    assert judge(ClassAccuracy(), samples, labels, dataset=data) == {"class_accuracy": 0.75}


def test_train_on_a_subset(digits, judge):
    held_out = digits.held_out()

    value = judge(ClassAccuracy(max_images=100), held_out.images, held_out.labels)

    assert 0.6 < value["class_accuracy"] < 0.97


def test_one_class_is_too_few(tensors, judge):
    data = tensors(torch.randn(5, 2))

    with pytest.raises(ValueError, match="at least two classes"):
        judge(ClassAccuracy(), data.images, data.labels, dataset=data)
    with pytest.raises(ValueError, match="max_images must be at least 1, got 0"):
        ClassAccuracy(max_images=0)
