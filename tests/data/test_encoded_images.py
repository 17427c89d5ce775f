"""Tests for afmlib.data.encoded_images, with a small random autoencoder."""

import pytest
import torch
from tiny_autoencoder import save_autoencoder

from afmlib.data.diffusers_autoencoder import DiffusersAutoencoder
from afmlib.data.digits import Digits
from afmlib.data.encoded_images import ENCODED_AT_ONCE, EncodedImages
from afmlib.engine.batches import BatchLayout, PlayerBatches
from afmlib.interfaces import Dataset
from afmlib.objectives.classifier_training import ClassifierTraining
from afmlib.ops.drawing import uniforms
from afmlib.registry import build_classifier

COUNT = ENCODED_AT_ONCE + 3


class Shaded(Dataset):
    """Color images that are made darker by their draw."""

    latent_shape = (3, 8, 8)
    num_classes = 2
    class_names = ("even", "odd")

    def __init__(self, has_rest=True):
        self.has_rest = has_rest

    def __len__(self):
        return COUNT

    def __getitems__(self, indices):
        images = torch.rand(COUNT, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        return images[list(indices)], torch.tensor(indices) % 2

    def draw(self, size, generator):
        return uniforms((size, 1), generator)

    def augment(self, stored, draws):
        return stored if draws is None else stored - draws[:, :, None, None]

    def held_out(self):
        return Shaded(has_rest=False) if self.has_rest else None


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vae")
    save_autoencoder(folder)
    return DiffusersAutoencoder(str(folder))


@pytest.fixture
def data(autoencoder):
    return EncodedImages(Shaded(), autoencoder)


@torch.no_grad()
def test_latents_are_codes_of_augmented_images(data, autoencoder):
    stored, labels = data.__getitems__(range(COUNT))
    draws = data.draw(COUNT, torch.Generator().manual_seed(1))

    latents = data.augment(stored, draws)

    means, stds = autoencoder.posterior(stored - draws[:, :1, None, None])
    noises = draws[:, 1:].reshape(COUNT, 4, 4, 4)
    torch.testing.assert_close(latents, 0.18215 * (means + stds * noises))
    assert abs(noises.mean()) < 0.2
    assert abs(noises.std() - 1) < 0.1
    assert torch.equal(labels, torch.arange(COUNT) % 2)


@torch.no_grad()
def test_plain_form_is_the_mean(data, autoencoder):
    stored, _ = data.__getitems__(range(COUNT))

    torch.testing.assert_close(data.augment(stored, None), autoencoder.encode(stored))


def test_latents_are_described(data, autoencoder):
    kept = data.held_out()

    for part in (data, kept):
        assert part.latent_shape == (4, 4, 4)
        assert part.latent_scale == 0.18215
        assert (part.num_classes, part.class_names) == (2, ("even", "odd"))
        assert len(part) == COUNT
    assert kept.held_out() is None
    assert kept.autoencoder is autoencoder


def test_autoencoder_is_frozen(data):
    stored, _ = data.__getitems__([0, 1])

    assert not data.augment(stored, None).requires_grad
    assert not any(weights.requires_grad for weights in data.autoencoder.parameters())


def test_device_of_autoencoder_and_latents(tmp_path):
    save_autoencoder(tmp_path)
    data = EncodedImages(Shaded(), DiffusersAutoencoder(str(tmp_path)))

    assert data.to(torch.device("meta")) is data
    assert next(data.autoencoder.parameters()).device.type == "meta"


def test_two_processes_equal_one(data):
    """Each draws for the whole batch and encodes its own rows."""
    network = dict(type="DiTClassifier", hidden_size=8, depth=1, num_heads=2)
    objective = ClassifierTraining(build_classifier(network, input_size=4, num_classes=2))
    shares = [BatchLayout(8), BatchLayout(8, 2, 1, rank=0), BatchLayout(8, 2, 1, rank=1)]
    streams = [
        PlayerBatches(data, objective, share, (0, 0), torch.device("cpu")) for share in shares
    ]

    for _ in range(3):
        whole, first, second = (stream.next()[0] for stream in streams)

        together = torch.stack([first.latents, second.latents], 1).flatten(0, 1)
        torch.testing.assert_close(together, whole.latents, rtol=1e-4, atol=1e-5)


def test_batch_is_equal_after_resume(data):
    network = dict(type="DiTClassifier", hidden_size=8, depth=1, num_heads=2)
    objective = ClassifierTraining(build_classifier(network, input_size=4, num_classes=2))
    streams = [
        PlayerBatches(data, objective, BatchLayout(8), (0, 0), torch.device("cpu"))
        for _ in range(2)
    ]
    streams[0].next()
    streams[1].start_at(8)

    one, other = (stream.next()[0].latents for stream in streams)

    assert torch.equal(one, other)


def test_latents_and_other_channels_raise(data, autoencoder):
    with pytest.raises(ValueError, match="The samples of a EncodedImages are latents already"):
        EncodedImages(data, autoencoder)
    message = r"A DiffusersAutoencoder cannot encode images of shape \(1, 8, 8\): Given groups=1"
    with pytest.raises(ValueError, match=message):
        EncodedImages(Digits(), autoencoder)
