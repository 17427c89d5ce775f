"""A hub on loopback, and a run of random weights."""

import json

import huggingface_hub.constants
import pytest
import torch
from hub_server import TOKEN, serve_hub

from afmlib import build_generator
from afmlib.interfaces import Conventions
from afmlib.io.checkpoint import save_checkpoint

DIT = dict(type="DiTGenerator", input_size=4, hidden_size=16, depth=2, num_heads=2, num_classes=3)
GRAY = DIT | dict(in_channels=1)
NAMES = ["cat", "dog", "owl"]


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Serves a hub. huggingface_hub reads these variables only when it is imported."""
    with serve_hub() as (served, url):
        template = "{}/{{repo_id}}/resolve/{{revision}}/{{filename}}".format
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", url)
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template(url))
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("AFMLIB_CACHE", str(tmp_path / "afmlib_cache"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        served.url = url
        yield served


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Returns a function that writes the checkpoint of a run, with an evaluation."""
    monkeypatch.chdir(tmp_path)

    def write(
        spec=GRAY,
        parameterization="SamplePrediction",
        nfe=1,
        scale=1.0,
        config="data: {type: Digits}\nseed: 0\n",
        autoencoder=None,
    ):
        online, averaged = build_generator(spec), build_generator(spec)
        for parameter in averaged.parameters():
            if parameter.requires_grad:
                torch.nn.init.normal_(parameter, std=0.2)
        any_nfe = parameterization == "InstantaneousVelocity"
        shape = averaged.latent_shape
        conventions = Conventions(
            "AdversarialFlow", parameterization, nfe, any_nfe, 3, shape, scale
        ).as_dict()
        manifest = dict(generator=spec, conventions=conventions, num_images=64, class_names=NAMES)
        networks = dict(generator=online.state_dict(), generator_ema=averaged.state_dict())
        if autoencoder is not None:
            networks["autoencoder"] = autoencoder.state_dict()
            manifest["autoencoder"] = autoencoder.spec
        save_checkpoint("run/checkpoints/000000064", networks, {}, config, manifest)
        entry = dict(num_images=64, values=dict(frechet_distance=7.25), protocol=dict(seed=4))
        (tmp_path / "run/evaluations.jsonl").write_text(json.dumps(entry) + "\n")
        return averaged

    return write
