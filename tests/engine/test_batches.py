"""Tests for afmlib.engine.batches."""

import threading
from collections import Counter
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from afmlib.engine.batches import BatchLayout, PlayerBatches
from afmlib.interfaces import Dataset, Objective
from afmlib.ops.drawing import normals, uniforms

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

    def draw(self, size, generator):
        return uniforms((size, 1), generator)

    def augment(self, stored, draws):
        return stored + draws / 2


@dataclass
class _Noises:
    noises: torch.Tensor
    absent: None = None


class _Draws(Objective):
    players = {"generator": 1}  # noqa: RUF012

    def draw(self, latents, generator=None):
        return _Noises(normals(latents.shape, generator, latents.dtype))

    def terms(self, player, latents, labels, draws):
        return {}


class _Whole:
    """The minibatches of a player in one process and one part."""

    def __init__(self, size, batch, num_images=0, name=(0, 0)):
        self.stream = PlayerBatches(
            _Numbers(size), _Draws(nn.Identity()), BatchLayout(batch), name, CPU
        )
        self.stream.start_at(num_images)

    def next(self):
        (part,) = self.stream.next()
        return part


batches = _Whole


def equal(one, other):
    return (
        torch.equal(one.latents, other.latents)
        and torch.equal(one.draws.noises, other.draws.noises)
        and one.network_seed == other.network_seed
    )


@given(st.integers(1, 30), st.integers(1, 12), st.integers(0, 10))
def test_batch_follows_from_images_seen(size, batch, skipped):
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
def test_seeds_and_players_get_different_batches(name):
    one, other = batches(1000, 50).next(), batches(1000, 50, name=name).next()

    assert not torch.equal(one.latents.floor(), other.latents.floor())
    assert not torch.equal(one.draws.noises, other.draws.noises)


def test_epochs_differ_in_their_order():
    stream = batches(100, 100)

    assert not torch.equal(stream.next().latents.floor(), stream.next().latents.floor())


def test_images_are_counted():
    stream = batches(10, 4, num_images=8)
    stream.next()

    assert stream.stream.num_images == 12


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(1, 30))
def test_layouts_share_the_same_batch(processes, parts, rows, size):
    batch = processes * parts * rows
    whole = batches(size, batch, num_images=batch).next()
    latents, noises = torch.empty_like(whole.latents), torch.empty_like(whole.draws.noises)
    seeds = set()

    for rank in range(processes):
        layout = BatchLayout(batch, processes, parts, rank)
        stream = PlayerBatches(_Numbers(size), _Draws(nn.Identity()), layout, (0, 0), CPU)
        stream.start_at(batch)
        for index, part in enumerate(stream.next()):
            assert len(part.latents) == rows
            first = rank + index * processes
            latents[first :: processes * parts] = part.latents
            noises[first :: processes * parts] = part.draws.noises
            seeds.add(part.network_seed)

    assert torch.equal(latents, whole.latents)
    assert torch.equal(noises, whole.draws.noises)
    assert len(seeds) == processes * parts


@pytest.mark.parametrize("parts", [1, 2, 4, 8])
@pytest.mark.parametrize("processes", [1, 2, 4, 8])
@given(st.integers(0, 2**32), st.integers(0, 3))
def test_divided_draws_equal_whole_ones(processes, parts, seed, batch):
    size, shape = 64, (2, 3)
    objective = _Draws(nn.Linear(1, 1).double())
    data = _Numbers(100)
    data.latent_shape = shape

    def draws(layout):
        stream = PlayerBatches(data, objective, layout, (seed, 0), CPU)
        return [draws.noises for _, draws, _ in stream._draw(batch * size)]

    (whole,) = draws(BatchLayout(size))
    assert whole.dtype == torch.float64
    for rank in range(processes):
        layout = BatchLayout(size, processes, parts, rank)
        for index, noises in enumerate(draws(layout)):
            assert torch.equal(noises, whole[rank + index * processes :: processes * parts])


@given(st.integers(1, 5), st.integers(1, 5))
def test_global_batch_does_not_change_an_image(few, factor):
    small, large = batches(30, few), batches(30, few * factor)
    parts = [small.next() for _ in range(factor)]

    whole = large.next()

    assert torch.equal(torch.cat([part.latents for part in parts]), whole.latents)
    assert torch.equal(torch.cat([part.draws.noises for part in parts]), whole.draws.noises)


def test_next_batch_is_drawn_ahead():
    objective, drawn = _Draws(nn.Identity()), threading.Event()
    stream = PlayerBatches(_Numbers(9), objective, BatchLayout(3), (0, 0), CPU)
    stream.next()
    draw = objective.draw

    def recorded(latents, generator=None):
        drawn.set()
        return draw(latents, generator)

    objective.draw = recorded
    for _ in range(stream.at_once):
        stream.next()

    assert drawn.wait(60)  # Without another call.
    stream.close()
    assert stream.next().__len__() == 1  # It starts again.
    stream.close()


def test_error_in_the_drawing_thread_is_raised():
    objective = _Draws(nn.Identity())
    stream = PlayerBatches(_Numbers(9), objective, BatchLayout(3), (0, 0), CPU)
    stream.next()
    stream.next()

    def broken(latents, generator=None):
        raise ValueError("no numbers left")

    objective.draw = broken
    with pytest.raises(ValueError, match="no numbers left"):
        [stream.next() for _ in range(2 * stream.at_once)]  # Some are drawn already.


@pytest.mark.parametrize(("numbers", "at_once"), [(2**8, 16), (2**15, 8), (2**30, 1)])
def test_only_small_batches_are_loaded_together(numbers, at_once):
    data = _Numbers(9)
    data.latent_shape = (numbers // 4,)  # Half of 8 samples are of this process.

    stream = PlayerBatches(data, _Draws(nn.Identity()), BatchLayout(8, 2), (0, 0), CPU)

    assert stream.at_once == at_once


@given(st.integers(1, 60), st.integers(1, 60))
def test_fewest_micro_batches_that_fit(batch, micro_batch):
    layout = BatchLayout.of(batch, micro_batch)

    size = batch // layout.num_micro_batches
    assert layout.num_micro_batches * size == batch
    assert size <= micro_batch
    larger = [parts for parts in range(1, layout.num_micro_batches) if batch % parts == 0]
    assert all(batch // parts > micro_batch for parts in larger)
