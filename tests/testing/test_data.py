"""Tests for afmlib.testing.data: broken datasets and autoencoders are noticed and named."""

import pytest
import torch
from torch import nn

from afmlib.interfaces import Autoencoder, Dataset, PointDataset
from afmlib.ops.drawing import uniforms
from afmlib.testing import check_autoencoder, check_dataset


class Noise(Dataset):
    """Normal noise, with a fresh offset in each step."""

    latent_shape = (2, 3)
    num_classes = 4
    class_names = tuple("abcd")

    def __init__(self):
        numbers = torch.Generator().manual_seed(0)
        self.values = torch.randn(20, 2, 3, generator=numbers)
        self.labels = torch.arange(20) % 4

    def __len__(self):
        return len(self.values)

    def __getitems__(self, indices):
        rows = torch.tensor(list(indices))
        return self.values[rows], self.labels[rows]

    def draw(self, size, generator):
        return uniforms((size, 1), generator)

    def augment(self, stored, draws):
        return stored if draws is None else stored + draws[:, :, None]


class Empty(Noise):
    def __len__(self):
        return 0


class TooManyNames(Noise):
    class_names = tuple("abcde")


class LabelsOutOfRange(Noise):
    num_classes = 3
    class_names = tuple("abc")


class FloatingLabels(Noise):
    def __getitems__(self, indices):
        stored, labels = super().__getitems__(indices)
        return stored, labels.float()


class UnstackedItems(Noise):
    def __getitems__(self, indices):
        return [super(UnstackedItems, self).__getitems__([index]) for index in indices]


class SortsItsIndices(Noise):
    def __getitems__(self, indices):
        return super().__getitems__(sorted(indices))


class DrawsWhatIsStored(Noise):
    def __getitems__(self, indices):
        stored, labels = super().__getitems__(indices)
        return stored + torch.randn_like(stored), labels


class AlwaysAugments(Noise):
    def augment(self, stored, draws):
        return stored + torch.rand(len(stored), 1, 1)


class IgnoresTheGenerator(Noise):
    def draw(self, size, generator):
        return torch.rand(size, 1)


class DrawsWhileItAugments(Noise):
    def augment(self, stored, draws):
        return stored if draws is None else stored + torch.rand(1)


class DrawsOneRow(Noise):
    def draw(self, size, generator):
        return super().draw(1, generator)


class DrawsPastTheSource(Noise):
    def draw(self, size, generator):
        return torch.rand(size, 1, generator=generator)


class DrawsByTheBatch(Noise):
    def draw(self, size, generator):
        return super().draw(size, generator).flip(0)


class MixesRows(Noise):
    def augment(self, stored, draws):
        return stored if draws is None else stored + draws.mean()


class AugmentsInPlace(Noise):
    def augment(self, stored, draws):
        return stored if draws is None else stored.add_(1)


class AnotherShape(Noise):
    def augment(self, stored, draws):
        return stored.flatten(1)


class Undecoded(Noise):
    def augment(self, stored, draws):
        return stored.to(torch.uint8)


class NotFinite(Noise):
    def augment(self, stored, draws):
        return stored / 0


class HoldsOutAnotherShape(Noise):
    def held_out(self):
        rest = Noise()
        rest.latent_shape = (3, 2)
        return rest


class HoldsOutATensor(Noise):
    def held_out(self):
        return self.values


class HoldsOutNothing(Noise):
    def held_out(self):
        return Empty()


@pytest.mark.parametrize(
    ("broken", "contract"),
    [
        (Empty, "a dataset has samples"),
        (TooManyNames, "with one of class_names each"),
        (LabelsOutOfRange, "labels are 0 to 2; 0 to 3"),
        (FloatingLabels, "labels are int64; they are torch.float32"),
        (UnstackedItems, "__getitems__ returns stored tensors, stacked"),
        (SortsItsIndices, "a sample depends only on its index"),
        (DrawsWhatIsStored, "a sample depends only on its index"),
        (AlwaysAugments, "augment without draws returns the plain form"),
        (IgnoresTheGenerator, "draw uses only the given generator"),
        (DrawsWhileItAugments, "draw uses only the given generator, and augment no"),
        (DrawsOneRow, r"draw returns one row per sample; it returned \(1, 1\)"),
        (MixesRows, "a latent depends only on its own rows"),
        (AugmentsInPlace, "augment does not change the stored tensors"),
        (AnotherShape, "for \\(17, 2, 3\\) it returned \\(17, 6\\)"),
        (Undecoded, "it returned .* torch.uint8"),
        (NotFinite, "latents are finite"),
        (HoldsOutAnotherShape, "held_out returns a Dataset of the same shape"),
        (HoldsOutATensor, "held_out returns .* it returned a Tensor"),
    ],
)
def test_broken_dataset_is_named(broken, contract):
    with pytest.raises(AssertionError, match=f"^{broken.__name__}: .*{contract}"):
        check_dataset(broken())


def test_what_is_held_out_is_checked_as_well():
    check_dataset(Noise())
    with pytest.raises(AssertionError, match=r"^Empty: a dataset has samples"):
        check_dataset(HoldsOutNothing())


def test_points_have_their_optimal_targets():
    class OneTarget(Noise, PointDataset):
        def optimal_targets(self, noises):
            return noises[:1]

    with pytest.raises(AssertionError, match=r"^OneTarget: .*one point of the data per noise"):
        check_dataset(OneTarget())


class Flat(Autoencoder):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def encode(self, images, generator=None):
        codes = self.layer(images.flatten(1))
        return codes + torch.randn(codes.shape, generator=generator)

    def posterior(self, images):
        codes = self.layer(images.flatten(1))
        return codes, torch.ones_like(codes)

    def decode(self, latents):
        return self.layer(latents).reshape(-1, 1, 2, 2)


class DrawsGlobally(Flat):
    def encode(self, images, generator=None):
        return super().encode(images)


class DecodesFlat(Flat):
    def decode(self, latents):
        return self.layer(latents)


class SamplesPosterior(Flat):
    def posterior(self, images):
        return self.encode(images), torch.ones(len(images), 4)


class DeviatesNegatively(Flat):
    def posterior(self, images):
        means, stds = super().posterior(images)
        return means, -stds


class KnowsNoDeviation(Flat):
    def posterior(self, images):
        means, stds = super().posterior(images)
        return means, 0 * stds


class ScalesPosterior(Flat):
    latent_scale = 0.01


@pytest.mark.parametrize(
    ("broken", "contract"),
    [
        (DrawsGlobally, "encode draws only from the given generator"),
        (DecodesFlat, r"decode returns finite tensors of shape \(1, 2, 2\); they are \(4,\)"),
        (SamplesPosterior, "without random numbers; it used the global random state"),
        (DeviatesNegatively, "a std is negative"),
        (KnowsNoDeviation, "codes are samples of their posterior, times latent_scale"),
        (ScalesPosterior, "codes are samples of their posterior, times latent_scale"),
    ],
)
def test_broken_autoencoder_is_named(broken, contract):
    check_autoencoder(Flat(), (1, 2, 2), (4,))
    with pytest.raises(AssertionError, match=f"^{broken.__name__}: .*{contract}"):
        check_autoencoder(broken(), (1, 2, 2), (4,))
