"""Tests for afmlib.networks.checks: one sentence instead of an error of torch."""

import pytest
import torch

from afmlib import build_classifier, build_discriminator, build_generator
from afmlib.networks.repeat import RepeatDepth

DIT = dict(input_size=4, in_channels=2, hidden_size=16, depth=1, num_heads=2, num_classes=3)
MLP = dict(in_channels=2, hidden_size=8, num_classes=3)
SHAPES = {"DiT": (2, 4, 4), "MLP": (2,)}


def generator(kind, **options):
    return build_generator(f"{kind}Generator", **(DIT if kind == "DiT" else MLP), **options)


def discriminator(kind, **options):
    return build_discriminator(f"{kind}Discriminator", **(DIT if kind == "DiT" else MLP), **options)


def classifier(kind):
    return build_classifier(f"{kind}Classifier", **(DIT if kind == "DiT" else MLP))


def batch(kind):
    return torch.randn(2, *SHAPES[kind]), torch.tensor([0, 2])


@pytest.mark.parametrize("kind", ["DiT", "MLP"])
@pytest.mark.parametrize("build", [generator, discriminator])
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            lambda x, y: (x, y[:1]),
            ValueError,
            r"labels must have shape \(2,\).*got int64 of.*\(1,\)",
        ),
        (lambda x, y: (x, y.float()), ValueError, "labels must have class indices.*got float32"),
        (lambda x, y: (x, y[:, None]), ValueError, r"labels must have shape \(2,\)"),
        (lambda x, y: (x, y.tolist()), TypeError, "labels must be a tensor, got list"),
        (lambda x, y: (x.tolist(), y), TypeError, "latents must be a tensor, got list"),
        (lambda x, y: (x[:, :1], y), ValueError, r"latents must have shape \(N, 2"),
        (lambda x, y: (x.byte(), y), ValueError, "latents must have floating-point.*got uint8"),
        (lambda x, y: (x.double(), y), ValueError, "latents must have float32.*got float64"),
    ],
)
def test_unfit_inputs_raise(kind, build, change, error, message):
    network = build(kind)

    with pytest.raises(error, match=f"^{kind}{build.__name__.title()}: {message}"):
        network(*change(*batch(kind)))


@pytest.mark.parametrize("kind", ["DiT", "MLP"])
def test_one_time_per_sample(kind):
    latents, labels = batch(kind)
    one = torch.ones(1)

    with pytest.raises(ValueError, match=r"timesteps_src must have shape \(2,\)"):
        generator(kind, use_timestep_src=True)(latents, labels, one)
    with pytest.raises(ValueError, match=r"timesteps must have shape \(2,\)"):
        discriminator(kind, use_timestep=True)(latents, labels, one)
    with pytest.raises(ValueError, match=r"timesteps must have shape \(2,\)"):
        classifier(kind)(latents, one)


def test_depth_wrapper_checks_its_inputs():
    network = RepeatDepth(2, generator("DiT", use_timestep_src=True))
    latents, labels = batch("DiT")

    with pytest.raises(ValueError, match=r"labels must have shape \(2,\)"):
        network(latents, labels[:1])


@pytest.mark.parametrize("kind", ["DiT", "MLP"])
def test_autocast_accepts_another_dtype(kind):
    latents, labels = batch(kind)

    with torch.autocast("cpu", torch.bfloat16):
        made = discriminator(kind)(latents.bfloat16(), labels)

    assert made.isfinite().all()


@pytest.mark.parametrize("kind", ["DiT", "MLP"])
def test_networks_declare_shape_and_classes(kind):
    for network in (generator(kind), discriminator(kind), classifier(kind)):
        assert (network.latent_shape, network.num_classes) == (SHAPES[kind], 3)
