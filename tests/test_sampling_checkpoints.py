"""Tests for afmlib.sampling: models out of checkpoints."""

import logging

import pytest
import torch
from torch import nn

from afmlib.interfaces import Conventions, SampleModel
from afmlib.io.checkpoint import CheckpointError, save_checkpoint
from afmlib.networks.dit import DiTGenerator
from afmlib.parameterizations import SamplePrediction
from afmlib.sampling import load_checkpoint, sample

TINY = dict(input_size=4, in_channels=2, hidden_size=8, depth=1, num_heads=2, num_classes=3)


def model_of(generator):
    conventions = Conventions(
        "AdversarialFlow",
        "SamplePrediction",
        nfe=1,
        any_nfe=False,
        num_classes=generator.num_classes,
        latent_shape=generator.latent_shape,
    )
    return SampleModel(generator, SamplePrediction(), conventions)


def tiny_transformer():
    generator = DiTGenerator(**TINY)
    for parameter in generator.parameters():
        nn.init.normal_(parameter, std=0.3)
    return generator


@pytest.fixture
def checkpoint(tmp_path):
    """Writes a checkpoint of a run, with other weights for the average."""
    online, averaged = tiny_transformer(), tiny_transformer()
    folder = tmp_path / "checkpoints" / "100"
    conventions = model_of(online).conventions
    manifest = {
        "num_images": 100,
        "conventions": conventions.as_dict(),
        "generator": {"type": "DiTGenerator", **TINY},
        "plugins": [],
    }

    def write(**changes):
        networks = {"generator": online.state_dict(), "generator_ema": averaged.state_dict()}
        save_checkpoint(str(folder), networks, {}, "", manifest | changes)
        return folder, conventions, online, averaged

    return write


def test_loaded_model_samples_as_saved(checkpoint, tmp_path):
    folder, conventions, online, averaged = checkpoint()

    for path in (folder, str(folder), tmp_path):
        loaded = load_checkpoint(path)
        assert torch.equal(sample(loaded, [0, 1]), sample(model_of(averaged), [0, 1]))
        assert loaded.conventions == conventions
        assert not loaded.generator.training
        assert not any(parameter.requires_grad for parameter in loaded.parameters())
    loaded = load_checkpoint(folder, ema=False)
    assert torch.equal(sample(loaded, [0, 1]), sample(model_of(online), [0, 1]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"conventions": {}}, "cannot be built"),
        ({"conventions": {"nfe": 1, "unheard_of": 2}}, "cannot be built"),
        ({"generator": {"type": "DiTGenerator", **TINY, "depth": 2}}, "do not fit its model"),
        ({"generator": {"type": "DiTGenerator", **TINY, "hidden_size": 12}}, "do not fit"),
        ({"generator": {"type": "DiTGenerator", **TINY, "depth": 0}}, "cannot be built"),
        ({"generator": {"type": "NoSuchGenerator"}}, "NoSuchGenerator"),
        ({"generator": {"type": "NoSuchGenerator"}, "plugins": ["my.py"]}, "plugins my.py"),
        ({"generator": {"type": "os.system", "command": "true"}}, r"os\.system"),
    ],
)
def test_incompatible_checkpoint_is_named(checkpoint, changes, message):
    folder, *_ = checkpoint(**changes)

    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(folder)


def test_empty_folder_raises(tmp_path):
    with pytest.raises(CheckpointError, match="There is no checkpoint in"):
        load_checkpoint(tmp_path)


def test_last_valid_checkpoint_is_used(checkpoint, tmp_path, caplog):
    _, _, _, averaged = checkpoint()
    newer = tmp_path / "checkpoints" / "200"
    save_checkpoint(str(newer), {"generator_ema": {}}, {}, "", {"num_images": 200})
    (newer / "training.pt").write_bytes(b"torn")

    with caplog.at_level(logging.WARNING, logger="afmlib"):
        loaded = load_checkpoint(tmp_path)

    assert torch.equal(sample(loaded, [0]), sample(model_of(averaged), [0]))
    assert "training.pt is corrupt" in caplog.text
