"""Tests for afmlib.metrics.decoded_extractor."""

import pytest
import torch

from afmlib.data.digits import Digits
from afmlib.data.tiny_autoencoder import TinyAutoencoder
from afmlib.interfaces import FeatureExtractor
from afmlib.metrics.decoded_extractor import DecodedExtractor
from afmlib.registry import OBJECTIVES


class Halves(FeatureExtractor):
    """The means of the two halves of gray digits."""

    name = "halves"
    outputs = frozenset({"features", "spatial"})

    def check_shape(self, shape):
        if tuple(shape) != (1, 8, 8):
            raise ValueError(f"images must have shape (1, 8, 8), got {tuple(shape)}")

    def forward(self, images):
        return images.reshape(len(images), 2, -1).mean(2)

    def extract(self, images):
        return {"features": self(images), "spatial": images.flatten(1)}


@pytest.fixture(scope="module")
def cached(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AFMLIB_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def tiny(**options):
    return TinyAutoencoder(in_channels=1, size=8, width=16, num_steps=3, **options)


@pytest.fixture
def extractor(cached):
    return DecodedExtractor(tiny(), Halves(), Digits())


def test_features_are_those_of_the_decoded_images(extractor):
    latents = torch.randn(3, 8, 1, 1, requires_grad=True)
    images = extractor.autoencoder.decode(latents)

    found = extractor.extract(latents)

    assert found.keys() == extractor.outputs == {"features", "spatial"}
    assert torch.equal(found["features"], extractor(latents))
    assert torch.equal(found["features"], Halves()(images))
    assert torch.equal(found["spatial"], images.flatten(1))
    found["features"].sum().backward()
    assert latents.grad.abs().sum() > 0
    assert not any(parameter.requires_grad for parameter in extractor.parameters())


def test_name_depends_on_the_autoencoder(extractor, cached):
    other = DecodedExtractor(tiny(kl_scale=0.1), Halves(), Digits())
    again = DecodedExtractor(tiny(), Halves(), Digits())

    assert extractor.name.startswith("halves-decoded-")
    assert again.name == extractor.name != other.name


def test_wrong_parts_raise(extractor):
    with pytest.raises(ValueError, match="TinyAutoencoder learns from images: set images"):
        DecodedExtractor(tiny(), Halves())
    extractor.check_shape((8, 1, 1))
    with pytest.raises(ValueError, match=r"cannot decode latents of shape \(1, 8, 8\)"):
        extractor.check_shape((1, 8, 8))
    with pytest.raises(ValueError, match=r"is for latents of shape \(8, 1, 1\), got \(8, 2, 2\)"):
        extractor.check_shape((8, 2, 2))
    large = TinyAutoencoder(in_channels=1, size=16, width=16)
    large.scale.fill_(1.0)
    extractor.autoencoder = large
    with pytest.raises(ValueError, match=r"images must have shape \(1, 8, 8\), got \(1, 16, 16\)"):
        extractor.check_shape((8, 2, 2))


def test_transport_of_latents_in_features_of_images(cached):
    decoded = dict(
        type="DecodedExtractor",
        autoencoder=dict(type="TinyAutoencoder", in_channels=1, size=8, width=16, num_steps=3),
        extractor="DigitsExtractor",
        images="Digits",
    )
    network = dict(
        type="DiTGenerator",
        **dict(hidden_size=16, depth=1, num_heads=2, patch_size=1),
        **dict(input_size=1, in_channels=8, num_classes=10),
    )
    objective = OBJECTIVES.build(
        dict(
            type="FeatureTransport",
            generator=network,
            extractors=[decoded],
            samples_per_class=4,
            num_positives=4,
        )
    )
    for parameter in objective.generator.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    latents, labels = torch.randn(8, 8, 1, 1), torch.arange(8) % 2

    terms = objective.terms("generator", latents, labels, objective.draw(latents))
    terms["transport"].backward()

    assert {"force_1", "force_2"} <= terms.observed.keys()
    assert all(p.grad is not None for p in objective.generator.parameters() if p.requires_grad)
