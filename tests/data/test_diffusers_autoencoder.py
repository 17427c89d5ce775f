"""Tests for afmlib.data.diffusers_autoencoder, with small random networks."""

import sys

import pytest
import torch
from tiny_autoencoder import save_autoencoder

from afmlib.data.diffusers_autoencoder import DiffusersAutoencoder
from afmlib.registry import AUTOENCODERS


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("vae")
    save_autoencoder(path)
    return str(path)


@pytest.fixture(scope="module")
def network(folder):
    """The same network without anything of ours around it."""
    from diffusers import AutoencoderKL

    return AutoencoderKL.from_pretrained(folder, low_cpu_mem_usage=False).eval()


def images():
    return torch.rand(3, 3, 8, 8) * 2 - 1


@torch.no_grad()
def test_codes_are_posterior_samples(folder, network):
    autoencoder, x = DiffusersAutoencoder(folder), images()
    posterior = network.encode(x).latent_dist
    noises = torch.randn(posterior.mean.shape, generator=torch.Generator().manual_seed(7))

    codes = autoencoder.encode(x, torch.Generator().manual_seed(7))

    assert codes.shape == (3, 4, 4, 4)
    assert autoencoder.reduction == 2
    torch.testing.assert_close(codes, 0.18215 * (posterior.mean + posterior.std * noises))
    torch.testing.assert_close(autoencoder.encode(x), 0.18215 * posterior.mean)
    assert autoencoder.posterior(x)[1].min() > 0


@torch.no_grad()
def test_decoding_unscales_and_clips(folder, network):
    autoencoder = DiffusersAutoencoder(folder, latent_scale=0.5)
    codes = 30 * torch.randn(3, 4, 4, 4)

    decoded = autoencoder.decode(codes)

    plain = network.decode(codes / 0.5).sample
    assert plain.abs().max() > 1
    torch.testing.assert_close(decoded, plain.clamp(-1, 1))


def test_registered_frozen_and_in_eval_mode(folder):
    autoencoder = AUTOENCODERS.build(dict(type="DiffusersAutoencoder", path=folder))

    assert autoencoder.latent_scale == 0.18215
    assert not any(parameter.requires_grad for parameter in autoencoder.parameters())
    assert not autoencoder.training


def test_latent_scale_of_the_config(tmp_path):
    save_autoencoder(tmp_path, scaling_factor=0.13)

    assert DiffusersAutoencoder(str(tmp_path)).latent_scale == 0.13


def test_shifted_codes_raise(tmp_path):
    save_autoencoder(tmp_path, shift_factor=0.1)

    with pytest.raises(OSError, match="are shifted"):
        DiffusersAutoencoder(str(tmp_path))


def test_pickled_weights_raise(tmp_path):
    network = save_autoencoder(tmp_path)
    (tmp_path / "diffusion_pytorch_model.safetensors").unlink()
    torch.save(network.state_dict(), tmp_path / "diffusion_pytorch_model.bin")

    with pytest.raises(OSError, match=f"No autoencoder could be loaded from {tmp_path}"):
        DiffusersAutoencoder(str(tmp_path))


@pytest.mark.parametrize("path", ["/no/such/folder", "./nowhere", "nowhere", "a/b/c", "~/vae"])
def test_missing_path_is_not_downloaded(path):
    with pytest.raises(FileNotFoundError, match=f"The autoencoder {path} does not exist"):
        DiffusersAutoencoder(path)


def test_empty_folder_raises(tmp_path):
    with pytest.raises(OSError, match="No autoencoder could be loaded") as error:
        DiffusersAutoencoder(str(tmp_path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("inf"), float("nan")])
def test_the_scale_is_positive(folder, scale):
    with pytest.raises(ValueError, match="latent_scale must be positive"):
        DiffusersAutoencoder(folder, latent_scale=scale)


def test_missing_package_names_its_extra(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)

    with pytest.raises(OSError, match=r"needs the package diffusers: pip install 'afmlib\[vae\]'"):
        DiffusersAutoencoder(folder)
