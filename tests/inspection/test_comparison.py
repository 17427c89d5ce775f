"""Tests for afmlib.inspection.comparison."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from afmlib.inspection import compare, comparison_picture
from afmlib.inspection.comparison import BLOCK_GAP, TITLE_HEIGHT, block_pixels, stack
from afmlib.sampling import sample, to_uint8


def test_compare_matches_sample(halfway):
    models = [("one", halfway()), ("two", halfway(nfe=2))]

    blocks = compare(models, [3, 7], rows=3, seed=5)

    for (name, model), block in zip(models, blocks, strict=True):
        assert (block.name, block.nfe, block.columns) == (name, model.conventions.nfe, 2)
        assert torch.equal(block.samples, sample(model, [3, 7, 3, 7, 3, 7], seed=5))
        assert block.title == f"{name}, nfe {block.nfe}"


def test_compare_one_model_at_two_nfe(halfway):
    model = halfway()

    blocks = compare([("one", model), ("four", model)], [0], rows=1, nfe=[1, 4])
    same = compare([("a", model), ("b", model)], [0], rows=1, nfe=[2])

    torch.testing.assert_close(blocks[1].samples, blocks[0].samples / 8)
    assert [block.nfe for block in blocks] == [1, 4]
    assert [block.nfe for block in same] == [2, 2]


def test_tiles_match_samples(halfway, tile_of):
    blocks = compare([("one", halfway()), ("two", halfway(nfe=2))], [1, 5, 9], rows=2)
    picture = np.asarray(Image.open(io.BytesIO(comparison_picture(blocks))))

    height = block_pixels(blocks[0]).shape[0]
    for number, block in enumerate(blocks):
        top = TITLE_HEIGHT + number * (TITLE_HEIGHT + height + BLOCK_GAP)
        for index, image in enumerate(to_uint8(block.samples)):
            made = tile_of(picture, index // 3, index % 3, top=top)
            assert (made == image.expand(3, -1, -1).numpy()).all()


def test_titles_are_above_blocks():
    grids = [(title, np.full((10, 20, 3), 7, np.uint8)) for title in ("", "a name that is long")]

    picture = stack(grids)

    assert picture.shape[1] > 20
    first, second = picture[:TITLE_HEIGHT], picture[TITLE_HEIGHT + 10 + BLOCK_GAP :][:TITLE_HEIGHT]
    assert (first == 255).all()
    assert (second < 128).any()
    assert (second[:, -1] == 255).all()
    assert (picture[TITLE_HEIGHT : TITLE_HEIGHT + 10, :20] == 7).all()


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (dict(latent_shape=(3, 8, 8)), r"a has samples of shape \(1, 8, 8\), b has \(3, 8, 8\)"),
        (dict(num_classes=4), "a has 10 classes, b has 4"),
    ],
)
def test_different_data_raise(halfway, other, message):
    with pytest.raises(ValueError, match=message) as error:
        compare([("a", halfway()), ("b", halfway(**other))], [0])

    assert str(error.value).count(". ") == 0


def test_invalid_arguments_raise(halfway):
    one = [("a", halfway(any_nfe=False))]

    for arguments in (dict(labels=[]), dict(labels=[0], rows=0)):
        with pytest.raises(ValueError, match="at least one"):
            compare(one, **arguments)
    with pytest.raises(ValueError, match="nfe needs one number, or 1 numbers for 1 models, got 2"):
        compare(one, [0], nfe=[1, 2])
    with pytest.raises(ValueError, match="trained for nfe 1 only"):
        compare(one, [0], nfe=[2])
    with pytest.raises(ValueError, match="inspect transport"):
        compare([("points", halfway((1,), 1))], [0])
