"""Tests for afmlib.cli.evaluate and afmlib.cli.reference."""

import dataclasses
import json
from pathlib import Path
from typing import ClassVar

import numpy as np
import official_layout as layout
import pytest
import torch

from afmlib import build_dataset, build_generator, load_checkpoint, save_pretrained
from afmlib.cli import main
from afmlib.config import EvaluationConfig, check_protocol, load_protocol
from afmlib.evaluation import balanced_labels, evaluate_model
from afmlib.evaluation.evaluate import _trace
from afmlib.evaluation.sources import ModelSource
from afmlib.interfaces import Autoencoder, Conventions, FeatureExtractor, Metric, Number
from afmlib.io.checkpoint import CheckpointError, save_checkpoint
from afmlib.parameterizations import ConditionedVelocity
from afmlib.registry import AUTOENCODERS, EXTRACTORS, METRICS
from afmlib.sampling import guided as with_scale

DIT = dict(type="DiTGenerator", input_size=8, in_channels=1, hidden_size=16, depth=1, num_heads=2)


@EXTRACTORS.register_module()
class CliMoments(FeatureExtractor):
    """Mean, std and maximum of an image, and a few of its pixels."""

    name = "moments"
    outputs = frozenset({"features", "spatial", "logits"})

    def forward(self, images):
        return self.extract(images)["features"]

    def extract(self, images):
        rows = images.mean(1).flatten(1)
        features = torch.stack([rows.mean(1), rows.std(1), rows.amax(1)], 1)
        return {"features": features, "spatial": rows[:, 18:23], "logits": features}


@AUTOENCODERS.register_module()
class CliFirstChannels(Autoencoder):
    """Three of the four channels of the official latents."""

    latent_scale = 0.18215

    def encode(self, images, generator=None):
        raise NotImplementedError

    def decode(self, latents):
        return latents[:, :3] / 5


@METRICS.register_module()
class CliFails(Metric):
    """A metric that fails when it is computed."""

    numbers: ClassVar = {"nothing": Number("nothing", better=None)}
    requires = frozenset({"features"})

    def __call__(self, evaluation):
        raise ValueError("On purpose.")


PROTOCOL = """
evaluation:
  name: mine
  num_samples: 40
  batch_size: 16
  round_images: true
  extractor: CliMoments
  metrics:
    - FrechetDistance
    - SpatialFrechetDistance
    - {type: InceptionScore, splits: 4}
    - {type: KernelDistance, subsets: 2, subset_size: 30}
    - PrecisionRecall
"""

NUMBERS = {
    "frechet_distance",
    "spatial_frechet_distance",
    "inception_score",
    "inception_score_std",
    "kernel_distance",
    "kernel_distance_std",
    "precision",
    "recall",
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a protocol and a checkpoint of digits."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(PROTOCOL)
    generator = build_generator(DIT, num_classes=10)
    for parameter in generator.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    spec = dict(DIT, num_classes=10)
    conventions = Conventions("AdversarialFlow", "SamplePrediction", 1, False, 10, (1, 8, 8), 1.0)
    manifest = dict(generator=spec, conventions=conventions.as_dict(), num_images=64)
    weights = generator.state_dict()
    networks = dict(generator=weights, generator_ema=weights)
    config = "data: {type: Digits}\nevaluation: {metrics: [Diversity], num_samples: 20}\n"
    save_checkpoint("run/checkpoints/000000064", networks, {}, config, manifest)
    return tmp_path


def run(*argv):
    return main([*map(str, argv)])


def numbers(path="numbers.json"):
    with open(path) as file:
        return json.load(file)


def test_sweep_evaluates_all_combinations(here, capsys):
    sweep = ("--sweep", "ema=true,false", "--sweep", "seed=0,1")
    assert run("evaluate", "--checkpoint", "run", *sweep, "--out", "numbers.json") == 0

    rows = numbers()
    settings = [(row["setting"]["ema"], row["setting"]["seed"]) for row in rows]
    assert settings == [(True, 0), (True, 1), (False, 0), (False, 1)]
    values = [row["values"]["diversity"] for row in rows]
    assert values[0] == values[2] != values[1] == values[3]  # Both kinds of weights are the same.
    assert [row["protocol"]["seed"] for row in rows] == [0, 1, 0, 1]
    assert "diversity" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        (["cfg=1,2"], "--sweep takes ema, guidance, nfe, seed, got 'cfg'"),
        (["guidance=1,2"], "AdversarialFlow takes no guidance scale when sampled"),
        (["nfe=1,2"], "This model was trained for nfe 1 only, not for 2"),
        (["nfe=1,x"], "--sweep nfe has a wrong value: '1,x'"),
        (["seed"], "--sweep seed has a wrong value: ''"),
        (["nfe=1", "nfe=2"], "--sweep nfe is given twice"),
    ],
)
def test_wrong_sweeps(here, capsys, monkeypatch, sweep, message):
    monkeypatch.setattr("afmlib.evaluation.evaluate_model", None)  # Found before any evaluation.
    words = [word for text in sweep for word in ("--sweep", text)]

    assert run("evaluate", "--checkpoint", "run", *words) == 2
    assert message in capsys.readouterr().err


def test_sweep_of_a_missing_ema(here, capsys, monkeypatch):
    monkeypatch.setattr("afmlib.evaluation.evaluate_model", None)  # Found before any evaluation.

    assert run("evaluate", "--checkpoint", "run", "--sweep", "ema=true,0.9") == 1
    assert (
        "has no EMA of decay 0.9, and stores no decays: set ema.decays" in capsys.readouterr().err
    )


def test_sweep_of_an_export(here, capsys, monkeypatch):
    assert run("export", "--checkpoint", "run", "--out", "mine") == 0
    assert run("evaluate", "--checkpoint", "mine", "--sweep", "ema", "--out", "numbers.json") == 0
    assert [row["setting"] for row in numbers()] == [{"ema": True}]

    monkeypatch.setattr("afmlib.evaluation.evaluate_model", None)  # Found before any evaluation.
    assert run("evaluate", "--checkpoint", "mine", "--sweep", "ema=true,false") == 2
    assert "mine has one set of weights: no --sweep ema=false" in capsys.readouterr().err


@pytest.fixture
def guided(here):
    """A checkpoint of improved MeanFlow, with another EMA of the decay 0.5."""
    spec = dict(
        DIT, num_classes=10, num_conditions=3, use_timestep_tgt=True, time_pair="difference"
    )
    networks = {}
    for name in ("generator", "generator_ema", "generator_ema_0_5"):
        generator = build_generator(spec)
        for parameter in generator.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        networks[name] = generator.state_dict()
    conventions = Conventions(
        "ImprovedMeanFlow",
        "ConditionedVelocity",
        1,
        True,
        10,
        (1, 8, 8),
        parameterization_arguments=dict(conditions=[0.5, 0.25, 0.75], factor=1.0),
    )
    decays = dict(generator_ema=0.9, generator_ema_0_5=0.5)
    averages = dict(decays=decays, warmup=False, updates=2)
    manifest = dict(
        generator=spec, conventions=conventions.as_dict(), num_images=64, averages=averages
    )
    config = "data: {type: Digits}\nevaluation: {metrics: [Diversity], num_samples: 20}\n"
    save_checkpoint("guided/checkpoints/000000064", networks, {}, config, manifest)
    return "guided"


def test_sweep_of_all_weights_and_guidance(guided):
    sweep = ("--sweep", "ema", "--sweep", "guidance=1,2,4")
    assert run("evaluate", "--checkpoint", guided, *sweep, "--out", "numbers.json") == 0

    rows = numbers()
    assert [tuple(row["setting"].values()) for row in rows] == [
        (ema, scale) for ema in (True, 0.5, False) for scale in (1.0, 2.0, 4.0)
    ]
    assert len({row["values"]["diversity"] for row in rows}) == 9
    assert [row["protocol"]["guidance"] for row in rows] == [1.0, 2.0, 4.0] * 3
    for row in rows:
        model = load_checkpoint(guided, ema=row["setting"]["ema"])
        scale = row["setting"]["guidance"]
        model.parameterization = ConditionedVelocity([1 - 1 / scale, 0.25, 0.75])
        config = EvaluationConfig(metrics=["Diversity"], num_samples=20)
        expected = evaluate_model(model, build_dataset("Digits"), config)
        assert row["values"] == expected["values"]


def test_export_of_another_scale_or_ema_has_no_evaluation(guided):
    line = dict(num_images=64, values=dict(diversity=0.5), protocol={})
    Path(guided, "evaluations.jsonl").write_text(json.dumps(line) + "\n")
    plain = load_checkpoint(guided)
    models = dict(plain=plain, scaled=with_scale(plain, 4.0), ema=load_checkpoint(guided, ema=0.5))

    for name, model in models.items():
        save_pretrained(model, name)
        again = load_checkpoint(name)
        assert again.parameterization.conditions == model.parameterization.conditions
        assert ("diversity" in Path(name, "README.md").read_text()) == (name == "plain")
        with pytest.raises(CheckpointError, match="and stores no decays"):
            load_checkpoint(name, ema=0.9)


def test_sweep_resumes_with_the_same_numbers(guided, monkeypatch):
    sweep = ("evaluate", "--checkpoint", guided, "--sweep", "guidance=1,2", "--work-dir", "work")
    assert run(*sweep, "--out", "whole.json") == 0

    made, make = [], ModelSource.make

    def stop(self, rows):
        made.append(self.model.parameterization.conditions[0])
        if made.count(0.5) == 1:
            raise KeyboardInterrupt
        return make(self, rows)

    sweep = [*sweep[:-1], "other", "--set", "evaluation.batch_size=10"]
    monkeypatch.setattr(ModelSource, "make", stop)
    assert run(*sweep) == 130
    assert run(*sweep, "--resume", "--out", "numbers.json") == 0

    assert made == [0.0, 0.0, 0.5, 0.5, 0.5]  # The first scale is not sampled again.
    assert [row["values"] for row in numbers()] == [row["values"] for row in numbers("whole.json")]


def test_sweep_resumes_only_against_the_same_data():
    digits, others = build_dataset("Digits"), build_dataset("Digits")
    others.images = -others.images

    assert _trace(digits) == _trace(build_dataset("Digits"))
    assert _trace(digits) != _trace(others)


def make_reference(*options):
    extractor = ("--set", "evaluation.extractor=CliMoments")
    assert run("reference", "afm_digits", "--out", "real.npz", *extractor, *options) == 0


def test_reference_file(here, capsys):
    make_reference("--num-images", 100)

    with np.load("real.npz") as file:
        arrays = dict(file)
    digits = build_dataset("Digits")
    pixels = ((digits.images + 1) * 127.5).round().to(torch.uint8)
    extractor = EXTRACTORS.build("CliMoments")
    for output, (mu, sigma) in {
        "features": ("mu", "sigma"),
        "spatial": ("mu_s", "sigma_s"),
    }.items():
        rows = extractor.extract(pixels / 127.5 - 1)[output].double().numpy()
        np.testing.assert_allclose(arrays[mu], rows.mean(0), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(arrays[sigma], np.cov(rows, rowvar=False), rtol=1e-4, atol=1e-6)
    assert arrays["extractor"] == "moments"
    assert arrays["arr_0"].shape == (100, 8, 8, 1)
    everything = {
        row.tobytes(): label
        for row, label in zip(pixels.numpy(), digits.labels.tolist(), strict=True)
    }
    for image, label in zip(arrays["arr_0"], arrays["arr_1"], strict=True):
        assert everything[image.tobytes()] == label
    assert "statistics of 1437 images: real.npz" in capsys.readouterr().out


def test_model_and_samples_agree(here, capsys):
    make_reference()
    protocol = ("--protocol", "mine.yaml", "--reference", "real.npz", "--out", "numbers.json")
    assert run("evaluate", "--checkpoint", "run", *protocol) == 0
    by_model = numbers()
    assert (
        run(
            "evaluate",
            "--checkpoint",
            "run",
            "--set",
            "evaluation.reference=real.npz",
            *protocol[:2],
            *protocol[4:],
        )
        == 0
    )
    assert numbers() == by_model
    order = by_model["protocol"]["order"]
    labels = [str(label) for label in balanced_labels(40, 10, 0).tolist()]
    assert (
        run(
            "sample",
            "--checkpoint",
            "run",
            "--num",
            40,
            "--labels",
            *labels,
            "--out",
            "samples.npz",
        )
        == 0
    )

    assert run("evaluate", "--samples", "samples.npz", *protocol) == 0

    by_file = numbers()
    assert set(by_model["values"]) == NUMBERS
    assert by_file["values"] == pytest.approx(by_model["values"], rel=1e-4, abs=1e-7)
    assert order == "shuffled"
    assert by_file["protocol"]["order"] == "as given"
    assert by_model["protocol"]["name"] == "mine"
    assert by_model["protocol"]["reference"].startswith("real.npz, SHA-256 ")
    text = capsys.readouterr().out
    assert "spatial_frechet_distance" in text
    assert "protocol: extractor moments" in text


def test_default_protocol_of_a_run(here):
    assert run("evaluate", "--checkpoint", "run", "--out", "numbers.json") == 0

    assert set(numbers()["values"]) == {"diversity"}
    assert numbers()["protocol"]["num_samples"] == 20


def test_default_protocol_of_an_official_file(here):
    state = layout.random_state(layout.generator(**layout.TINY | dict(classes=1000)))
    torch.save(state, "b2_1nfe_guided_FID3.05.pth")
    images = np.random.default_rng(0).integers(0, 256, (50, 4, 4, 3), dtype=np.uint8)
    np.savez("VIRTUAL_imagenet256_labeled.npz", arr_0=images)
    small = [
        *("--set", "evaluation.num_samples=40", "--set", "evaluation.extractor=CliMoments"),
        *("--set", "evaluation.autoencoder=CliFirstChannels", "--num-heads", "2"),
        *("--set", "evaluation.metrics=[FrechetDistance, PrecisionRecall]"),
    ]

    assert (
        run(
            "evaluate",
            "--checkpoint",
            "b2_1nfe_guided_FID3.05.pth",
            "--out",
            "numbers.json",
            *small,
        )
        == 0
    )

    protocol, values = numbers()["protocol"], numbers()["values"]
    assert protocol["name"] == "adm50k, changed"
    assert protocol["round_images"]
    assert protocol["autoencoder"].startswith("CliFirstChannels-")
    assert set(values) == {"frechet_distance", "precision", "recall"}
    published = ("--checkpoint", "b2_1nfe_guided_FID3.05.pth", "--num-heads", "2")
    assert run("export", *published, "--out", "exported") == 0  # It has no config either.
    small.remove("--num-heads")
    small.remove("2")
    assert run("evaluate", "--checkpoint", "exported", "--out", "numbers.json", *small) == 0
    assert numbers() == {"protocol": protocol, "values": values}


def test_failed_metric_keeps_the_samples(here, capsys):
    make_reference()
    evaluate = [
        "evaluate",
        "--checkpoint",
        "run",
        "--protocol",
        "mine.yaml",
        "--reference",
        "real.npz",
        "--work-dir",
        "work",
    ]
    fails = "evaluation.metrics=[CliFails]"
    small = "evaluation.metrics=[{type: KernelDistance, subset_size: 40}]"

    assert run(*evaluate, "--set", fails) == 1
    assert "CliFails cannot be computed: On purpose." in capsys.readouterr().err
    assert list((here / "work").rglob("*.safetensors"))
    assert run(*evaluate, "--set", small) == 2
    assert "--resume" in capsys.readouterr().err
    assert run(*evaluate, "--set", small, "--resume") == 0
    assert not list((here / "work").rglob("*.safetensors"))


def test_corrupt_reference(here, capsys):
    (here / "real.npz").write_bytes(b"PK no archive")
    protocol = ("--protocol", "mine.yaml", "--reference")

    assert run("evaluate", "--checkpoint", "run", *protocol, "real.npz") == 2
    assert "real.npz is corrupt or not an .npz archive" in capsys.readouterr().err
    assert run("evaluate", "--checkpoint", "run", *protocol, "nowhere.npz") == 2
    assert "nowhere.npz" in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv",
    [
        ["evaluate", "--checkpoint", "run", "--out", "folder"],
        ["reference", "afm_digits", "--out", "folder.npz"],
        ["sample", "--checkpoint", "run", "--out", "folder.npz"],
        ["export", "--checkpoint", "run", "--out", "folder.npz"],
    ],
)
def test_folder_in_the_place_of_a_file_is_found_first(argv, here, capsys, monkeypatch):
    monkeypatch.setattr("afmlib.cli.models.device_of", None)  # Before any work.
    (here / argv[-1]).mkdir()

    assert run(*argv) == 1
    assert f"A folder, not a file: {here / argv[-1]}" in capsys.readouterr().err


MISTAKES = [
    (["evaluate"], "Give either --checkpoint or --samples"),
    (["evaluate", "--checkpoint", "run", "--samples", "x.npz"], "Give either --checkpoint"),
    (["evaluate", "--checkpoint", "run", "--resume"], "--resume needs --work-dir"),
    (["evaluate", "--samples", "x.npz", "--nfe", "2"], "--nfe is for models"),
    (["evaluate", "--checkpoint", "run", "--protocol", "adm5k"], "Did you mean 'adm50k'"),
    (["evaluate", "--checkpoint", "run", "--protocol", "no.yaml"], "There is no config file"),
    (["evaluate", "--checkpoint", "run", "--set", "evaluation.round=1"], "'round_images'"),
    (
        ["evaluate", "--checkpoint", "run", "--set", "num_samples=40"],
        "does not use num_samples: its keys begin with data or evaluation",
    ),
    (
        ["evaluate", "--samples", "x.npz", "--protocol", "mine.yaml"],
        "There is no reference: give a file with --reference",
    ),
    (
        [
            "evaluate",
            "--checkpoint",
            "run",
            "--protocol",
            "mine.yaml",
            "--set",
            "evaluation.autoencoder=CliFirstChannels",
        ],
        "the samples are not latents",
    ),
    (["reference", "afm_digits", "--out", "real.png"], "--out must end in .npz"),
    (["reference", "afm_digits", "--out", "r.npz", "--num-images", "-1"], "must not be negative"),
    (["reference", "afm_gaussians2d", "--out", "r.npz"], "has no extractor"),
    (
        [
            "reference",
            "afm_gaussians2d",
            "--out",
            "r.npz",
            "--set",
            "evaluation.extractor=CliMoments",
        ],
        "A reference holds images",
    ),
]


@pytest.mark.parametrize(("argv", "message"), MISTAKES)
def test_mistakes(argv, message, here, capsys):
    assert run(*argv) == 2

    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_adm50k(tmp_path):
    protocol = check_protocol(load_protocol("adm50k"))

    assert protocol.num_samples == 50_000
    assert protocol.round_images
    names = [spec if isinstance(spec, str) else spec["type"] for spec in protocol.metrics]
    assert names == [
        "FrechetDistance",
        "SpatialFrechetDistance",
        "InceptionScore",
        "KernelDistance",
        "PrecisionRecall",
    ]
    (tmp_path / "small.yaml").write_text("_base_: evaluations/adm50k\nevaluation: {num_samples: 9}")
    small = check_protocol(load_protocol(str(tmp_path / "small.yaml")))
    assert small == dataclasses.replace(protocol, num_samples=9)
    assert set(balanced_labels(50_000, 1000, 0).bincount().tolist()) == {50}
