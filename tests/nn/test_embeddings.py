"""Tests for afmlib.nn.embeddings."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.layers import PatchEmbed as TimmPatchEmbed

from afmlib.nn.embeddings import (
    LabelEmbedder,
    PatchEmbed,
    TimestepEmbedder,
    position_embedding,
    sinusoids,
)

pytestmark = pytest.mark.usefixtures("float64")

times = st.floats(0, 1)


# --- Sinusoids ------------------------------------------------------------------------------------


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=3), st.integers(1, 8))
def test_sinusoids_match_formula(values, half):
    waves = sinusoids(torch.tensor(values), 2 * half, max_period=500.0)

    for row, value in zip(waves, values, strict=True):
        for k in range(half):
            angle = value * math.exp(-math.log(500.0) * k / half)
            assert abs(row[k] - math.cos(angle)) < 1e-10
            assert abs(row[half + k] - math.sin(angle)) < 1e-10


@given(times)
def test_timestep_frequencies_match_paper(time):
    embedder = TimestepEmbedder(8)
    rows = []
    embedder.mlp.register_forward_pre_hook(lambda module, inputs: rows.append(inputs[0]))

    embedder(torch.tensor([time]))

    assert rows[0].shape == (1, 256)
    for k in range(128):
        angle = 1000 * time * math.exp(-math.log(10_000) * k / 128)
        assert abs(rows[0][0, k] - math.cos(angle)) < 2e-4  # It is computed in float32.
        assert abs(rows[0][0, 128 + k] - math.sin(angle)) < 2e-4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_sinusoid_precision_with_half_weights(dtype):
    rows = {}
    for precision in (torch.float32, dtype):
        embedder = TimestepEmbedder(8).to(precision)
        embedder.mlp.register_forward_pre_hook(
            lambda module, inputs, key=precision: rows.update({key: inputs[0]})
        )
        embedder(torch.tensor([0.751, 1.0], dtype=torch.float32))

    assert rows[dtype].dtype == dtype
    assert torch.equal(rows[dtype], rows[torch.float32].to(dtype))


@given(times, st.floats(0.1, 1e4))
def test_time_scale_is_a_factor(time, scale):
    rows = []
    fast, slow = TimestepEmbedder(8, time_scale=scale), TimestepEmbedder(8, time_scale=1.0)
    for embedder, value in ((fast, time), (slow, scale * time)):
        embedder.mlp.register_forward_pre_hook(lambda module, inputs: rows.append(inputs[0]))
        embedder(torch.tensor([value]))

    torch.testing.assert_close(*rows)


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan])
def test_time_scale_must_be_positive(scale):
    with pytest.raises(ValueError, match=f"time_scale must be positive, got {scale}"):
        TimestepEmbedder(8, time_scale=scale)


def test_timestep_embedder_initialization():
    embedder = TimestepEmbedder(512)

    for layer in (embedder.mlp[0], embedder.mlp[2]):
        assert abs(layer.weight.std() - 0.02) < 5e-4
        assert not layer.bias.any()


def test_timestep_embedder_matches_formula():
    embedder = TimestepEmbedder(8)
    first, _, second = embedder.mlp
    t = torch.tensor([0.25, 1.0])

    waves = sinusoids(1000 * t, 256)
    hidden = waves @ first.weight.T + first.bias
    expected = (hidden / (1 + torch.exp(-hidden))) @ second.weight.T + second.bias

    torch.testing.assert_close(embedder(t), expected, rtol=1e-10, atol=1e-12)


# --- Positions ------------------------------------------------------------------------------------


@given(st.integers(1, 5), st.integers(1, 4))
def test_position_embedding_matches_formula(size, quarter):
    dim = 4 * quarter
    table = position_embedding(size, dim)

    assert table.shape == (1, size**2, dim)
    for row in range(size):
        for column in range(size):
            expected = []
            for position in (column, row):
                waves = [position / 10_000 ** (k / quarter) for k in range(quarter)]
                expected += [math.sin(wave) for wave in waves]
                expected += [math.cos(wave) for wave in waves]
            entry = table[0, row * size + column]
            torch.testing.assert_close(entry, torch.tensor(expected), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dim", [1, 2, 6, 1150])
def test_position_width_must_divide_by_four(dim):
    with pytest.raises(ValueError, match=f"divisible by 4, got {dim}"):
        position_embedding(4, dim)


# --- Patches --------------------------------------------------------------------------------------


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 5))
def test_patches_are_in_row_major_order(cells, patch, channels, width):
    embedder = PatchEmbed(cells * patch, patch, channels, width)
    images = torch.randn(2, channels, cells * patch, cells * patch)

    tokens = embedder(images)

    for row in range(cells):
        for column in range(cells):
            window = images[
                :, :, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch
            ]
            expected = window.flatten(1) @ embedder.proj.weight.flatten(1).T + embedder.proj.bias
            torch.testing.assert_close(tokens[:, row * cells + column], expected)


def test_patches_match_timm():
    embedder = PatchEmbed(8, 2, 4, 12)
    theirs = TimmPatchEmbed(img_size=8, patch_size=2, in_chans=4, embed_dim=12)
    theirs.load_state_dict(embedder.state_dict(), strict=True)
    images = torch.randn(3, 4, 8, 8)

    torch.testing.assert_close(embedder(images), theirs(images), rtol=1e-12, atol=1e-12)


def test_patch_projection_initialization():
    embedder = PatchEmbed(8, 2, 4, 512)
    bound = math.sqrt(6 / (4 * 2 * 2 + 512))

    assert embedder.proj.weight.abs().max() <= bound
    assert embedder.proj.weight.abs().max() > 0.99 * bound
    assert abs(embedder.proj.weight.std() - bound / math.sqrt(3)) < 0.02 * bound
    assert not embedder.proj.bias.any()


@pytest.mark.parametrize(("size", "patch"), [(8, 3), (8, 16), (8, 0), (0, 2), (7, 2)])
def test_patch_must_divide_image(size, patch):
    with pytest.raises(ValueError, match=f"patch_size {patch} does not divide input_size {size}"):
        PatchEmbed(size, patch, 4, 8)


# --- Labels ---------------------------------------------------------------------------------------


def test_label_embedder():
    embedder = LabelEmbedder(100, 64)
    table = embedder.embedding_table.weight
    labels = torch.tensor([3, 0, 99])

    assert torch.equal(embedder(labels), table[labels])
    assert table.shape == (100, 64)
    assert abs(table.std() - 0.02) < 1e-3


@pytest.mark.parametrize("wrong", [-1, 4])
def test_labels_beyond_the_table_raise(wrong):
    with pytest.raises(ValueError, match=f"labels must be from 0 to 3, got .*{wrong}"):
        LabelEmbedder(4, 8)(torch.tensor([0, wrong]))
