"""Tests for afmlib.metrics.inception_extractor, with random weights: none are downloaded."""

import hashlib
import pickle

import pytest
import torch
from torch_fidelity import feature_extractor_inceptionv3

from afmlib.metrics import inception_extractor as module
from afmlib.metrics.inception_extractor import InceptionExtractor


class Harmful:
    def __reduce__(self):
        return print, ("Run!",)


def test_an_unknown_file_is_never_unpickled(tmp_path, capsys):
    path = tmp_path / "pt_inception-2015-12-05-6726825d.pth"
    path.write_bytes(pickle.dumps(Harmful()))

    with pytest.raises(ValueError, match=r"is not the published Inception .* 6726825d0af5"):
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
        return cls("inception-v3-compat", ["2048"])


def test_features_are_those_of_torch_fidelity(network, tmp_path, monkeypatch):
    path = tmp_path / "weights.pth"
    torch.save(network.state_dict(), path)
    monkeypatch.setattr(module, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    pixels = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    before = torch.get_rng_state()

    extractor = InceptionExtractor(str(path))
    features = extractor(pixels / 127.5 - 1)

    assert torch.equal(torch.get_rng_state(), before)
    assert features.shape == (2, 2048)
    assert torch.equal(features, network(pixels)[0])
    assert extractor.name.startswith("inception-2015-12-05-2048-")
    assert not extractor.training
    assert not features.requires_grad
