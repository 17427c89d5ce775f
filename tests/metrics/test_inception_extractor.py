"""Tests for afmlib.metrics.inception_extractor, with random weights: none are downloaded."""

import hashlib
import pickle

import pytest
import torch
from torch_fidelity import feature_extractor_inceptionv3
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

from afmlib.metrics import inception_extractor as module
from afmlib.metrics.inception_extractor import InceptionExtractor


class Harmful:
    def __reduce__(self):
        return print, ("Run!",)


def test_unknown_file_is_not_unpickled(tmp_path, capsys):
    path = tmp_path / "pt_inception-2015-12-05-6726825d.pth"
    path.write_bytes(pickle.dumps(Harmful()))

    with pytest.raises(ValueError, match=r"is not the official Inception .* 6726825d0af5"):
        InceptionExtractor(str(path))

    assert capsys.readouterr().out == ""
    with pytest.raises(FileNotFoundError):
        InceptionExtractor(str(tmp_path / "nowhere.pth"))


@pytest.fixture
def network(monkeypatch):
    """Returns Inception with random weights."""
    cls = feature_extractor_inceptionv3.FeatureExtractorInceptionV3
    with monkeypatch.context() as patch:
        patch.setattr(
            feature_extractor_inceptionv3, "load_state_dict_from_url", lambda *_, **__: {}
        )
        patch.setattr(cls, "load_state_dict", lambda *_: None)
        return cls("inception-v3-compat", ["768", "2048", "logits_unbiased"])


@pytest.fixture
def extractor(network, tmp_path, monkeypatch):
    """Returns an extractor with the same weights."""
    path = tmp_path / "weights.pth"
    torch.save(network.state_dict(), path)
    monkeypatch.setattr(module, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    return InceptionExtractor(str(path))


def test_features_match_torch_fidelity(network, tmp_path, monkeypatch):
    path = tmp_path / "weights.pth"
    torch.save(network.state_dict(), path)
    monkeypatch.setattr(module, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    pixels = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    before = torch.get_rng_state()

    extractor = InceptionExtractor(str(path))
    features = extractor(pixels / 127.5 - 1)

    assert torch.equal(torch.get_rng_state(), before)
    assert features.shape == (2, 2048)
    assert torch.equal(features, network(pixels)[1])
    assert extractor.name.startswith("inception-2015-12-05-2048-")
    assert not extractor.training
    assert not features.requires_grad


def layer_by_layer(network, pixels):
    """Returns the input of ``Mixed_6d``, by the layers of Inception one after the other."""
    images = interpolate_bilinear_2d_like_tensorflow1x(
        pixels.float(), size=(299, 299), align_corners=False
    )
    maps = (images - 128) / 128
    for name in (
        *("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "MaxPool_1"),
        *("Conv2d_3b_1x1", "Conv2d_4a_3x3", "MaxPool_2"),
        *("Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c"),
    ):
        maps = getattr(network, name)(maps)
    return maps


def test_outputs_match_the_adm_suite(network, extractor):
    pixels = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)

    found = extractor.extract(pixels / 127.5 - 1)

    assert found.keys() == extractor.outputs
    _, features, logits = network(pixels)
    assert torch.equal(found["features"], features)
    assert torch.equal(found["logits"], logits)
    torch.testing.assert_close(logits, features @ network.fc.weight.T)
    # mixed_6/conv of the TensorFlow graph, [..., :7], in its order: (height, width, channel).
    branch = network.Mixed_6d.branch1x1
    maps = branch.bn(branch.conv(layer_by_layer(network, pixels))).relu()
    assert maps.shape[1:] == (192, 17, 17)
    expected = maps.permute(0, 2, 3, 1)[..., :7].reshape(2, -1)
    assert found["spatial"].shape == (2, 2023)
    assert expected.std() > 0
    torch.testing.assert_close(found["spatial"], expected)
    assert not extractor.network.Mixed_6d.branch1x1._forward_hooks
