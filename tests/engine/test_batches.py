"""Tests for afmlib.engine.batches."""

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from afmlib.engine.batches import PlayerBatches
from afmlib.interfaces import Dataset, Objective

CPU = torch.device("cpu")


class _Numbers(Dataset):
    latent_shape = (1,)
    num_classes = 1
    class_names = ("number",)

    def __init__(self, size):
        self.size = size

    def __len__(self):
        return self.size

    def __getitems__(self, indices):
        return torch.tensor(indices, dtype=torch.float32)[:, None], torch.zeros(len(indices)).long()

    def augment(self, stored, generator):
        return stored + torch.rand(stored.shape, generator=generator) / 2


class _Draws(Objective):
    players = {"generator": 1}  # noqa: RUF012

    def draw(self, latents, generator=None):
        return torch.randn(latents.shape, generator=generator)

    def terms(self, player, latents, labels, draws):
        return {}

    @property
    def sample_model(self):
        raise NotImplementedError


def batches(size, batch, num_images=0, name=(0, 0)):
    return PlayerBatches(_Numbers(size), _Draws(), batch, name, num_images, CPU)


def equal(one, other):
    return (
        torch.equal(one.latents, other.latents)
        and torch.equal(one.draws, other.draws)
        and one.network_seed == other.network_seed
    )


@given(st.integers(1, 30), st.integers(1, 12), st.integers(0, 10))
def test_any_batch_is_found_by_its_images_without_those_before(size, batch, skipped):
    replayed = batches(size, batch)
    for _ in range(skipped):
        replayed.next()

    assert equal(replayed.next(), batches(size, batch, skipped * batch).next())


@given(st.integers(1, 30), st.integers(1, 12))
def test_each_epoch_shows_every_sample_once(size, batch):
    stream = batches(size, batch)
    seen = [int(n) for _ in range(3 * size // batch + 1) for n in stream.next().latents]

    for epoch in range(3):
        assert Counter(seen[epoch * size : (epoch + 1) * size]) == Counter(range(size))


@pytest.mark.parametrize("name", [(1, 0), (0, 1)])
def test_seeds_and_players_see_other_batches(name):
    one, other = batches(1000, 50).next(), batches(1000, 50, name=name).next()

    assert not torch.equal(one.latents.floor(), other.latents.floor())
    assert not torch.equal(one.draws, other.draws)


def test_epochs_differ_in_their_order():
    stream = batches(100, 100)

    assert not torch.equal(stream.next().latents.floor(), stream.next().latents.floor())


def test_images_are_counted():
    stream = batches(10, 4, num_images=8)
    stream.next()

    assert stream.num_images == 12
