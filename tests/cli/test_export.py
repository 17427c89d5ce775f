"""Tests for afmlib.cli.export."""

import json
import re

import numpy as np
import official_layout as layout
import pytest
import torch
import yaml
from tiny_autoencoder import save_autoencoder

from afmlib import build_generator, load_checkpoint, load_official, sample
from afmlib.cli import main
from afmlib.interfaces import Conventions
from afmlib.io.checkpoint import save_checkpoint
from afmlib.official import generator_spec

DIT = dict(type="DiTGenerator", input_size=4, hidden_size=16, depth=2, num_heads=2, num_classes=5)
TIMED = DIT | dict(use_timestep_src=True)
DEEP = dict(type="RepeatDepth", repeats=3, generator=DIT)
SAMPLE, VELOCITY = "SamplePrediction", "VelocityPrediction"
MLP = dict(type="MLPGenerator", in_channels=2, hidden_size=8, num_classes=5)


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    """Writes the newest checkpoint of a run, with an evaluation; returns its EMA generator."""
    monkeypatch.chdir(tmp_path)

    def write(spec, parameterization=SAMPLE, nfe=1, scale=1.0, **options):
        online, averaged = build_generator(spec), build_generator(spec)
        for generator in (online, averaged):
            for parameter in generator.parameters():
                torch.nn.init.normal_(parameter, std=0.2)
        shape = averaged.latent_shape
        conventions = Conventions("AdversarialFlow", parameterization, nfe, False, 5, shape, scale)
        manifest = dict(generator=spec, conventions=conventions.as_dict(), num_images=64, **options)
        networks = dict(generator=online.state_dict(), generator_ema=averaged.state_dict())
        save_checkpoint("run/checkpoints/000000064", networks, {}, "seed: 0\n", manifest)
        evaluations = [
            dict(num_images=32, values=dict(frechet_distance=9.5), protocol=dict(seed=3)),
            dict(num_images=64, values=dict(frechet_distance=7.25), protocol=dict(seed=4)),
        ]
        lines = "".join(json.dumps(entry) + "\n" for entry in evaluations)
        (tmp_path / "run/evaluations.jsonl").write_text(lines + '{"num_images": 64, "val')
        return averaged

    return write


def export(*options):
    return main(["export", "--checkpoint", "run", *options])


def is_latent(spec):
    return "in_channels" not in spec  # DiT has four channels by default.


def same(one, other):
    return set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)


CASES = [
    (DIT, SAMPLE, 1, {}),
    (DIT, VELOCITY, 1, {}),
    (TIMED, VELOCITY, 2, dict(nfe=2)),
    (TIMED, SAMPLE, 1, dict(nfe=1, repeats=1)),
    (DEEP, SAMPLE, 1, dict(repeats=3)),
]


@pytest.mark.parametrize(("spec", "parameterization", "nfe", "told"), CASES)
def test_pth_round_trip(spec, parameterization, nfe, told, checkpoint, capsys):
    averaged = checkpoint(spec, parameterization, nfe)
    original = load_checkpoint("run")

    assert export("--out", "model.pth") == 0

    said = capsys.readouterr().out
    again = eval(said.split(": ", 1)[1], {"afmlib": __import__("afmlib")})  # As it says.
    expected = averaged.generator if "repeats" in spec else averaged
    assert same(torch.load("model.pth", weights_only=True), expected.state_dict())
    assert same(again.generator.state_dict(), averaged.state_dict())
    assert torch.equal(sample(again, [0, 4]), sample(original, [0, 4]))
    assert generator_spec(again.generator) == generator_spec(original.generator)
    prediction = "sample" if parameterization == SAMPLE else "velocity"
    short = load_official("model.pth", num_heads=2, prediction=prediction, **told)
    assert torch.equal(sample(short, [0, 4]), sample(original, [0, 4]))


def test_pth_with_another_attention(checkpoint):
    checkpoint({**DIT, "attention": "math"})

    assert export("--out", "model.pth") == 0


def test_wrong_file_is_removed(checkpoint, tmp_path, monkeypatch, capsys):
    checkpoint(DIT)
    told = dict(repeats=1, nfe=1, prediction="velocity", num_heads=2)
    monkeypatch.setattr("afmlib.cli.export._arguments", lambda model: told)

    assert export("--out", "model.pth") == 1

    assert "differs from the model when read back" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_names_in_pth(checkpoint):
    checkpoint(DEEP)

    assert export("--out", "model.pth") == 0

    shapes = layout.generator(**layout.TINY, times=("t_embedder",))
    found = torch.load("model.pth", weights_only=True)
    assert {name: tuple(value.shape) for name, value in found.items()} == shapes


def test_online_weights(checkpoint):
    averaged = checkpoint(DIT)

    assert export("--out", "model.pth", "--online") == 0

    assert not same(torch.load("model.pth", weights_only=True), averaged.state_dict())


@pytest.mark.parametrize("spec", [DIT, DEEP, MLP])
def test_folder_with_a_card(spec, checkpoint, tmp_path, capsys):
    averaged = checkpoint(spec, class_names=list("abcde"))
    names = {"model.safetensors", "config.json", "config.yaml", "README.md"}
    names |= set() if is_latent(spec) else {"samples.png"}

    assert export("--out", "mine", "--license", "cc-by-4.0") == 0

    assert {path.name for path in (tmp_path / "mine").iterdir()} == names
    assert same(load_checkpoint("mine").generator.state_dict(), averaged.state_dict())
    if spec is not MLP:
        options = ["--labels", "e", "--num", "2", "--out", "x.npz"]
        assert main(["sample", "--checkpoint", "mine", *options]) == 0
    card = (tmp_path / "mine/README.md").read_text()
    _, header, text = card.split("---\n", 2)
    assert yaml.safe_load(header)["license"] == "cc-by-4.0"
    assert yaml.safe_load(text.split("```yaml\n")[1].split("```")[0]) == spec
    for line in (
        "images (EMA weights).",
        "License: cc-by-4.0",
        "| frechet_distance | 7.25 |",
        "Protocol: seed 4",
    ):
        assert line in text
    assert "9.5" not in text
    assert 'load_checkpoint("mine")' in capsys.readouterr().out


def test_card_of_online_weights(checkpoint, tmp_path):
    checkpoint(DIT)

    assert export("--out", "mine", "--online") == 0
    assert main(["export", "--checkpoint", "mine", "--out", "again"]) == 0

    for name in ("mine", "again"):
        card = (tmp_path / name / "README.md").read_text()
        assert "images (online weights)." in card
        assert "None: evaluations use the EMA weights" in card
        assert "7.25" not in card


def test_card_without_license_or_evaluation(checkpoint, tmp_path, capsys):
    checkpoint(DIT)
    (tmp_path / "run/evaluations.jsonl").unlink()

    assert export("--out", "mine") == 0

    card = (tmp_path / "mine/README.md").read_text()
    assert "license" not in card.split("---\n")[1]
    assert "License: Not stated" in card
    assert "None: its run has no evaluation" in card
    assert "--license TEXT" in capsys.readouterr().out


def test_official_file_to_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, times in (("xl2_56layer_1nfe_guided", 1), ("xl2_2nfe_guided", 1), ("b2_1nfe", 0)):
        state = layout.random_state(layout.generator(**layout.TINY, times=("t_embedder",)[:times]))
        torch.save(state, f"{name}.pth")
        options = ["--checkpoint", f"{name}.pth", "--num-heads", "2", "--out", name]

        assert main(["export", *options]) == 0

        again, original = load_checkpoint(name), load_official(f"{name}.pth", num_heads=2)
        assert again.conventions == original.conventions
        assert torch.equal(sample(again, [1, 2]), sample(original, [1, 2]))


def test_npz_is_balanced_and_shuffled(checkpoint, tmp_path):
    checkpoint(DIT, scale=0.18215)
    save_autoencoder("vae")
    options = ["--num", "50", "--batch-size", "7", "--seed", "2", "--vae", "vae"]

    assert export("--out", "a.npz", *options) == 0

    found = np.load(tmp_path / "a.npz")
    labels = found["arr_1"]
    assert found["arr_0"].shape == (50, 8, 8, 3)
    assert found["arr_0"].dtype == np.uint8
    assert np.bincount(labels).tolist() == [10] * 5
    halves = [np.bincount(half, minlength=5) for half in np.split(labels, 2)]
    assert all(half.min() > 0 for half in halves)
    assert labels.tolist() not in (sorted(labels), [index % 5 for index in range(50)])
    assert export("--out", "b.npz", *options[:2], "--batch-size", "50", *options[4:]) == 0
    difference = np.load(tmp_path / "b.npz")["arr_0"].astype(int) - found["arr_0"]
    assert np.abs(difference).max() <= 1


def test_npz_of_gray_images(checkpoint, tmp_path):
    checkpoint(DIT | dict(in_channels=1))

    assert export("--out", "a.npz", "--num", "6") == 0

    images = np.load(tmp_path / "a.npz")["arr_0"]
    assert images.shape == (6, 4, 4, 3)
    assert (images == images[..., :1]).all()


@pytest.mark.parametrize(
    ("spec", "parameterization", "options", "message"),
    [
        (MLP, SAMPLE, ["--out", "x.pth"], "not MLPGenerator: export as safetensors"),
        (
            DEEP | dict(type="RepeatBlocks"),
            SAMPLE,
            ["--out", "x.pth"],
            "not RepeatBlocks: export as safetensors",
        ),
        (DEEP | dict(repeats=1), SAMPLE, ["--out", "x.pth"], "deep model with repeats 1"),
        (TIMED | dict(time_scale=1.0), VELOCITY, ["--out", "x.pth"], "time_scale 1000, not 1: "),
        (TIMED, "InstantaneousVelocity", ["--out", "x.pth"], "not InstantaneousVelocity"),
        (DIT | dict(class_dropout_prob=0.1), SAMPLE, ["--out", "x.pth"], "has no null class"),
        (DIT, SAMPLE, ["--out", "x.npz"], "needs images, .* such as --vae stabilityai/"),
        (MLP, SAMPLE, ["--out", "x.npz"], "needs images"),
        (DIT, SAMPLE, ["--out", "x.pth", "--format", "npz"], r"must end in \.npz"),
        (DIT, SAMPLE, ["--out", "x.pth", "--format", "safetensors"], "writes a folder"),
        (DIT, SAMPLE, ["--out", "run"], "run is not empty"),
        (DIT, SAMPLE, ["--out", "x.npz", "--num", "0"], "--num must be at least 1"),
    ],
)
def test_mistakes(spec, parameterization, options, message, checkpoint, tmp_path, capsys):
    checkpoint(spec, parameterization)

    assert export(*options) == 2

    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(message, error), error
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
