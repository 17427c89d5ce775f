"""Tests for afmlib.io.trained_weights."""

import logging

import pytest
import torch

from afmlib.io import trained_weights as module
from afmlib.io.checked_tensors import pack
from afmlib.io.trained_weights import hash_of, trained_weights


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("AFMLIB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def get(trainings, name="net-1"):
    def train(steps):
        assert torch.is_grad_enabled()
        assert torch.get_num_threads() == 1
        trainings.append(list(steps(3)))
        return {"weight": torch.ones(2)}

    return trained_weights(name, "the network", train)


def test_weights_are_trained_once(cache):
    trainings = []
    with torch.inference_mode():
        first = get(trainings)

    second = get(trainings)

    assert trainings == [[0, 1, 2]]
    assert torch.equal(first["weight"], second["weight"])
    assert not first["weight"].is_inference()


def test_corrupt_weights_are_trained_again(cache, caplog):
    trainings = []
    get(trainings)
    (cache / "net-1.safetensors").write_bytes(b"corrupt")

    get(trainings)
    get(trainings)

    assert len(trainings) == 2
    assert "Training the network again" in caplog.text


def test_unwritable_cache_only_warns(cache, caplog):
    cache.write_text("no folder")
    trainings = []

    weights = get(trainings)

    assert weights["weight"].tolist() == [1, 1]
    assert "are not cached" in caplog.text


def test_weights_in_the_package_come_first(cache, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "SHIPPED", tmp_path)
    (tmp_path / "net-1.safetensors").write_bytes(pack({"weight": torch.zeros(2)}))
    trainings = []

    assert get(trainings)["weight"].tolist() == [0, 0]
    assert get(trainings, "net-2")["weight"].tolist() == [1, 1]
    assert len(trainings) == 1


def test_duration_is_announced(cache, caplog):
    caplog.set_level(logging.INFO, logger="afmlib")

    trained_weights("net-1", "the network", lambda steps: {"n": torch.tensor(len(list(steps(30))))})

    assert "Training the network takes about" in caplog.text


def test_hash_depends_on_images_and_settings():
    images = torch.zeros(3, 1, 2, 2, dtype=torch.uint8)

    names = {
        hash_of(images, {"width": 1}),
        hash_of(images, {"width": 2}),
        hash_of(images + 1, {"width": 1}),
    }

    assert len(names) == 3
    assert hash_of(images, {"a": 1, "b": 2}) == hash_of(images.clone(), {"b": 2, "a": 1})
