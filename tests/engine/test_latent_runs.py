"""Tests of the engine with images that a small autoencoder encodes: train, resume, sample."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from PIL import Image

from afmlib import evaluate, load_checkpoint, sample
from afmlib.cli import main
from afmlib.config import load_config
from afmlib.engine import Runner
from afmlib.evaluation import evaluate_samples
from afmlib.evaluation.protocol import balanced_labels
from afmlib.interfaces import Autoencoder
from afmlib.sampling import decode_latents, to_uint8

DATA = dict(
    type="LatentImages",
    images=dict(type="Digits"),
    autoencoder=dict(
        type="TinyAutoencoder", in_channels=1, size=8, latent_channels=4, width=16, num_steps=3
    ),
)
NETWORK = dict(patch_size=1, hidden_size=8, depth=1, num_heads=2)
SETTINGS = {
    "data": DATA,
    "objective.generator": NETWORK,
    "objective.discriminator": NETWORK,
    "evaluation.extractor": None,
    "evaluation.num_samples": 40,
    "evaluation.metrics": ["Diversity", "NearestTrainingImage"],
    "global_batch": 16,
    "num_images": 64,
    "checkpoint_every": None,
    "sample_every": None,
    "log.grid_rows": 2,
}


class StopAfterTwo(Hook):
    def after_train_iter(self, runner, **kwargs):
        if runner.train_loop.num_images == 32:
            runner.stop()


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AFMLIB_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def train(folder, hooks=(), **options):
    config = load_config("afm_mnist", SETTINGS)
    runner = Runner(config, folder, device="cpu", hooks=hooks, **options)
    runner.train()
    return runner


@pytest.fixture(scope="module")
def trained(cache, tmp_path_factory):
    return train(tmp_path_factory.mktemp("run"))


def test_resume_is_exact(trained, tmp_path):
    train(tmp_path, hooks=[StopAfterTwo()]).save()
    resumed = train(tmp_path, resume=True)

    for name, value in trained.objective.state_dict().items():
        assert torch.equal(value, resumed.objective.state_dict()[name]), name


def test_checkpoint_has_the_autoencoder(trained):
    model = load_checkpoint(trained.folder)

    own, stored = trained.dataset.autoencoder.state_dict(), model.autoencoder.state_dict()
    assert isinstance(model.autoencoder, Autoencoder)
    assert all(torch.equal(own[name], stored[name]) for name in own)
    assert not any("autoencoder" in name for name in trained.objective.state_dict())


def test_samples_are_decoded(trained, tmp_path):
    model = load_checkpoint(trained.folder)
    latents = sample(model, [1, 2])

    images = sample(model, [1, 2], output="uint8")

    assert latents.shape == (2, 4, 1, 1)
    assert torch.equal(images, to_uint8(decode_latents(model.autoencoder, latents)))
    out = tmp_path / "samples.npz"
    command = ["sample", "--checkpoint", trained.folder, "--num", "2", "--labels", "1", "2"]
    assert main([*command, "--out", str(out)]) == 0
    assert np.array_equal(np.load(out)["arr_0"], images.permute(0, 2, 3, 1).numpy())


def test_grids_show_images(trained):
    (path,) = Path(trained.folder, "samples").iterdir()

    width, height = Image.open(path).size

    assert (width, height) == (10 * 36 + 4, 2 * 36 + 4)  # Tiles of 32 pixels, and gaps of 4.


def test_evaluation_compares_decoded_samples_with_the_images(trained):
    (line,) = Path(trained.folder, "evaluations.jsonl").read_text().splitlines()
    found, config = json.loads(line), trained.run_config.evaluation
    model = trained.objective.sample_model

    images = trained.dataset.images
    labels = balanced_labels(config.num_samples, 10, config.seed)
    decoded = decode_latents(trained.dataset.autoencoder, sample(model, labels, seed=config.seed))
    expected = evaluate_samples(decoded, labels, images, config)
    assert found["values"] == pytest.approx(expected["values"], rel=1e-5)
    assert found["protocol"]["autoencoder"].startswith("TinyAutoencoder-")
    assert evaluate(trained.folder, progress=False)["values"] == found["values"]


def test_export_keeps_the_autoencoder(trained, tmp_path):
    out = tmp_path / "export"
    command = ["export", "--checkpoint", trained.folder, "--out", str(out), "--store", "float16"]

    assert main([*command, "--note", "Trained by a test."]) == 0

    card = (out / "README.md").read_text()
    assert "Trained by a test." in card
    assert "--vae" not in card
    images = [sample(str(each), 3, output="uint8").int() for each in (out, trained.folder)]
    assert (images[0] - images[1]).abs().max() <= 2
    whole = Path(trained.last_checkpoint, "generator_ema.safetensors").stat().st_size
    assert (out / "model.safetensors").stat().st_size < 0.7 * whole
