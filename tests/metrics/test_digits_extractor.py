"""Tests for afmlib.metrics.digits_extractor and afmlib.metrics.digits_network."""

import logging

import pytest
import torch

from afmlib.metrics import digits_extractor as module
from afmlib.metrics.digits_extractor import DigitsExtractor
from afmlib.metrics.digits_network import train_digits_network


@pytest.fixture
def cache(tmp_path, monkeypatch, digits_extractor):
    """Returns an empty cache, with training replaced by weights that were trained before."""
    weights = {
        name: tensor.clone() for name, tensor in digits_extractor.network.state_dict().items()
    }
    weights["scale"] = digits_extractor.scale.clone()
    trainings = []
    monkeypatch.setattr(
        module, "train_digits_network", lambda: trainings.append(1) or dict(weights)
    )
    monkeypatch.setenv("AFMLIB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache", trainings


def test_training_is_reproducible(digits_extractor):
    before, threads = torch.get_rng_state(), torch.get_num_threads()

    with torch.inference_mode():  # Where evaluations may happen.
        weights = train_digits_network()

    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads
    assert torch.equal(weights.pop("scale"), digits_extractor.scale)
    trained = digits_extractor.network.state_dict()
    assert weights.keys() == trained.keys()
    assert all(torch.equal(weights[name], trained[name]) for name in weights)


def test_accuracy_on_held_out_digits(digits, digits_extractor):
    held_out = digits.held_out()

    right = digits_extractor.network(held_out.images).argmax(1) == held_out.labels

    assert right.double().mean() > 0.97


def test_features_are_scaled_and_clipped(digits, digits_extractor):
    features = digits_extractor(digits.images)

    assert features.shape == (1437, 64)
    torch.testing.assert_close(features.var(0).mean().item(), 1.0, atol=0.01, rtol=0)
    assert not features.requires_grad
    wild = 5 * digits.images
    assert torch.equal(digits_extractor(wild), digits_extractor(wild.clamp(-1, 1)))
    assert digits_extractor(digits.images.double()).dtype == torch.float32


def test_outputs_of_one_pass(digits, digits_extractor):
    images = digits.images[:50]
    network = digits_extractor.network

    found = digits_extractor.extract(images)

    assert found.keys() == digits_extractor.outputs
    assert torch.equal(found["features"], digits_extractor(images))
    torch.testing.assert_close(found["logits"], network(images))
    maps = network[0][4](network[0][3](network[0][2](network[0][1](network[0][0](images)))))
    assert maps.shape == (50, 32, 4, 4)
    torch.testing.assert_close(found["spatial"], maps[:, :8].reshape(50, 128))


def test_other_shapes_raise(digits_extractor):
    with pytest.raises(ValueError, match=r"\(1, 8, 8\), got \(3, 32, 32\)"):
        digits_extractor(torch.zeros(2, 3, 32, 32))


def test_weights_are_trained_once_and_kept(cache, digits_extractor):
    folder, trainings = cache

    first, second = DigitsExtractor(), DigitsExtractor()

    assert len(trainings) == 1
    assert len(list(folder.iterdir())) == 1
    assert first.name == second.name == digits_extractor.name
    assert torch.equal(second.network.head.weight, digits_extractor.network.head.weight)


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "foreign"])
def test_corrupt_file_is_replaced(cache, caplog, digits_extractor, damage):
    folder, trainings = cache
    DigitsExtractor()
    (file,) = folder.iterdir()
    content = file.read_bytes()
    flipped = content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]
    file.write_bytes(
        {"empty": b"", "cut": content[:1000], "flipped": flipped, "foreign": b"x" * 99}[damage]
    )

    with caplog.at_level(logging.WARNING, "afmlib"):
        extractor = DigitsExtractor()

    assert len(trainings) == 2
    assert "again" in caplog.text
    assert extractor.name == digits_extractor.name
    assert file.read_bytes() == content


def test_cache_without_permission(cache, monkeypatch, caplog):
    folder, _ = cache
    folder.write_text("A file, in which there can be no folder.")

    with caplog.at_level(logging.WARNING, "afmlib"):
        DigitsExtractor()

    assert "is not cached" in caplog.text


def test_cache_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/somewhere")
    monkeypatch.delenv("AFMLIB_CACHE", raising=False)
    assert module._cache_path().startswith("/somewhere/.cache/afmlib/digits-")
