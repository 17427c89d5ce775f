"""Tests for afmlib.data.digits."""

import pytest
import torch

from afmlib.data.digits import Digits
from afmlib.io.digits_archive import read_digits


def everything(dataset):
    return dataset.__getitems__(range(len(dataset)))


def test_split_is_fixed_and_stratified():
    archive = read_digits()

    assert len(Digits()) == 1437
    assert len(Digits().held_out()) == 360
    assert sorted([*archive.train.tolist(), *archive.test.tolist()]) == list(range(1797))
    assert archive.test[:6].tolist() == [0, 6, 9, 11, 23, 25]
    counts = archive.labels.bincount().double()
    torch.testing.assert_close(
        archive.labels[archive.test].bincount().double(), counts * 360 / 1797, atol=1, rtol=0
    )


def test_images_match_their_labels():
    images, labels = everything(Digits())

    assert images.dtype == torch.float32
    assert images.shape == (1437, *Digits.latent_shape)
    assert (images.min(), images.max()) == (-1, 1)
    assert ((images + 1) * 8 == ((images + 1) * 8).round()).all()
    assert set(labels.tolist()) == set(range(Digits.num_classes))
    assert len(Digits.class_names) == Digits.num_classes


def test_rows_keep_the_requested_order():
    digits = Digits("test")
    images, labels = everything(digits)

    some, their_labels = digits.__getitems__([5, 2, 5])

    assert torch.equal(some, images[[5, 2, 5]])
    assert torch.equal(their_labels, labels[[5, 2, 5]])
    assert torch.equal(digits.augment(some, digits.draw(3, torch.Generator())), some)


def test_test_split_holds_nothing_out():
    assert Digits("test").held_out() is None
    with pytest.raises(ValueError, match="split must be 'train' or 'test', got 'validation'"):
        Digits("validation")
