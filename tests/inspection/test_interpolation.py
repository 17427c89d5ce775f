"""Tests for afmlib.inspection.interpolation."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from afmlib.inspection import interpolate_noises, interpolation_picture
from afmlib.ops.seeding import indexed_noises
from afmlib.sampling import sample, to_uint8

label_lists = st.lists(st.integers(0, 9), min_size=1, max_size=3)


@given(st.integers(0, 2**32), st.integers(1, 4), st.integers(2, 6), label_lists)
@settings(max_examples=20)
def test_row_ends_match_sample(halfway, seed, rows, steps, labels):
    model = halfway()
    own = [labels[row % len(labels)] for row in range(rows) for _ in range(2)]

    strip = interpolate_noises(model, labels, rows, steps, seed)

    expected = sample(model, own, seed=seed)
    table = strip.samples.unflatten(0, (rows, steps))
    starts = indexed_noises(seed, range(0, 2 * rows, 2), (1, 8, 8))
    assert torch.equal(table[:, 0], expected[::2])
    assert torch.equal(table[:, -1], expected[1::2])
    assert torch.equal(strip.noises[::steps], starts)
    assert strip.labels.unflatten(0, (rows, steps)).T.tolist() == [own[::2]] * steps


def test_noises_have_equal_angles(halfway):
    strip = interpolate_noises(halfway((3, 16, 16)), [0], rows=2, steps=5)

    table = strip.noises.double().unflatten(0, (2, 5)).flatten(2)
    lengths = table.norm(dim=2, keepdim=True)
    unit = table / lengths
    angles = (unit[:, 1:] * unit[:, :-1]).sum(2).acos()
    torch.testing.assert_close(angles, angles[:, :1].expand(-1, 4), rtol=1e-3, atol=0)
    assert (lengths / (3 * 16 * 16) ** 0.5 - 1).abs().max() < 0.1


@pytest.mark.parametrize("nfe", [1, 3])
def test_tiles_match_samples(halfway, tile_of, nfe):
    model = halfway((3, 8, 8))
    strip = interpolate_noises(model, [3, 7], rows=3, steps=4, nfe=nfe)
    picture = interpolation_picture(strip)

    for row in range(3):
        for column in range(4):
            index = 4 * row + column
            noise, label = strip.noises[index : index + 1], strip.labels[index : index + 1]
            expected = to_uint8(sample(model, label, nfe, noises=noise))[0].numpy()
            assert (tile_of(picture, row, column) == expected).all()


def test_latents_are_decoded_or_cut_to_three_channels(halfway, tile_of):
    strip = interpolate_noises(halfway((4, 8, 8)), [1], rows=1, steps=2)
    decode = lambda latents: -latents[:, 1:]

    plain, decoded = interpolation_picture(strip), interpolation_picture(strip, decode)

    assert (tile_of(plain, 0, 1) == to_uint8(strip.samples[1, :3]).numpy()).all()
    assert (tile_of(decoded, 0, 1) == to_uint8(-strip.samples[1, 1:]).numpy()).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rows": 0}, "rows must be at least 1"),
        ({"steps": 1}, "steps at least 2, got 4 and 1"),
        ({"labels": []}, "at least one class"),
        ({"labels": [10]}, "labels must be from 0 to 9, got 10"),
    ],
)
def test_invalid_arguments_raise(halfway, arguments, message):
    with pytest.raises(ValueError, match=message):
        interpolate_noises(halfway(), **{"labels": [0], **arguments})


def test_points_raise(halfway):
    with pytest.raises(ValueError, match=r"shape \(2,\).*inspect transport"):
        interpolate_noises(halfway((2,), 1), [0])
