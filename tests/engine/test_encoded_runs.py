"""Tests of the engine with images that are changed and encoded in the training step."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from PIL import Image
from tiny_autoencoder import save_autoencoder

from afmlib.cli import main
from afmlib.config import load_config
from afmlib.engine import Runner

TINY = [
    "objective.classifier.hidden_size=8",
    "objective.classifier.depth=1",
    "objective.classifier.num_heads=2",
    # Some gradients are zero but for rounding, of which Adam would make steps of full length.
    "optimizers.classifier={lr: 0.01, eps: 1e-3}",
    "data.images.images.size=12",
    "data.images.size=8",
    "global_batch=4",
    "num_images=12",
    "checkpoint_every=null",
    "num_workers=0",
]


class StopAfterOne(Hook):
    def after_train_iter(self, runner, **kwargs):
        if runner.train_loop.num_images == 4:
            runner.stop()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Eight images of two classes, and an autoencoder."""
    place = tmp_path_factory.mktemp("images")
    numbers = np.random.default_rng(0)
    for index in range(8):
        folder = place / f"images/class_{index % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = numbers.integers(0, 256, (14, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    save_autoencoder(place / "vae")
    return place


def train(place, work_dir, *overrides, hooks=(), **options):
    paths = [f"data.images.images.path={place}/images", f"data.autoencoder.path={place}/vae"]
    config = load_config("classifier_b2_images", [*TINY, *paths, *overrides])
    runner = Runner(config, work_dir, device="cpu", hooks=hooks, **options)
    runner.train()
    return runner


@pytest.fixture(scope="module")
def trained(place, tmp_path_factory):
    return train(place, tmp_path_factory.mktemp("run"))


def weights(runner):
    return dict(runner.objective.classifier.state_dict())


def test_training_learns_the_latents(trained, tmp_path):
    fresh = Runner(trained.plain_config, tmp_path, device="cpu")

    assert trained.train_loop.iter == 3
    assert trained.dataset.latent_shape == (4, 4, 4)
    assert trained.objective.classifier.x_embedder.proj.in_channels == 4
    changed = [not torch.equal(weights(fresh)[name], now) for name, now in weights(trained).items()]
    assert any(changed)
    assert not any(name.startswith("autoencoder") for name in trained.objective.state_dict())


def test_resume_is_exact(trained, place, tmp_path):
    train(place, tmp_path, hooks=[StopAfterOne()]).save()
    resumed = train(place, tmp_path, resume=True)

    for name, value in trained.objective.state_dict().items():
        assert torch.equal(value, resumed.objective.state_dict()[name]), name


def test_micro_batches_train_as_one_batch(trained, place, tmp_path):
    parts = train(place, tmp_path, "micro_batch=2")

    for name, value in weights(trained).items():
        torch.testing.assert_close(weights(parts)[name], value, rtol=1e-3, atol=1e-5, msg=name)


def test_loader_processes_change_nothing(trained, place, tmp_path):
    loaded = train(place, tmp_path, "num_workers=1")

    for name, value in weights(trained).items():
        assert torch.equal(weights(loaded)[name], value), name


def test_augmentation_changes_the_run(trained, place, tmp_path):
    plain = train(place, tmp_path, "data.images.probability=0.0")

    pairs = zip(weights(trained).values(), weights(plain).values(), strict=True)
    assert max((one - other).abs().max() for one, other in pairs) > 1e-3


def test_evaluation_uses_unaugmented_images(trained, capsys, tmp_path):
    (line,) = Path(trained.folder, "evaluations.jsonl").read_text().splitlines()
    stored = json.loads(line)
    out = tmp_path / "numbers.json"

    assert main(["evaluate", "--checkpoint", trained.folder, "--out", str(out)]) == 0

    assert stored["protocol"]["reference"] == "EncodedImages, 8 training samples"
    assert json.loads(out.read_text())["values"] == stored["values"]
