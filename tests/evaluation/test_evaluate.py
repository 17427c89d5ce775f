"""Tests for afmlib.evaluation.evaluate: on one process and two, in one go and interrupted."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from afmlib.config import ConfigError
from afmlib.data.digits import Digits
from afmlib.evaluation import (
    EvaluationError,
    balanced_labels,
    build_extractor,
    evaluate_file,
    evaluate_model,
    evaluate_samples,
)
from afmlib.evaluation import shards as shards_module
from afmlib.evaluation.evaluator import _build_once
from afmlib.evaluation.shards import key_of
from afmlib.evaluation.sources import ModelSource
from afmlib.interfaces import SampleModel
from afmlib.io.npz import NpzError
from afmlib.parameterizations import SamplePrediction
from afmlib.registry import build_generator
from afmlib.sampling import sample, to_uint8

SCRIPT = Path(__file__).with_name("evaluating.py")
LAUNCH = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]


def _load_script():
    spec = importlib.util.spec_from_file_location("evaluating", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


evaluating = _load_script()


@pytest.fixture(scope="module")
def whole():
    """The numbers of an evaluation in one go, on one process."""
    return evaluating.evaluate()


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(shards_module, "SHARD_SIZE", 8)


def kept(folder):
    return sorted(path.name for path in Path(folder).rglob("*.safetensors"))


# --- What is evaluated ---


def test_batches_equal_all_samples_at_once(whole):
    labels = balanced_labels(43, 10, 0)
    samples = sample(evaluating.model(), labels, seed=0)

    again = evaluate_samples(samples, labels, Digits(), evaluating.config(), nfe=1)

    assert again["protocol"] == whole["protocol"]
    assert again["values"] == pytest.approx(whole["values"], rel=1e-4)
    assert {
        "frechet_distance",
        "pixel_frechet_distance",
        "spatial_frechet_distance",
        "inception_score",
        "kernel_distance",
        "precision",
        "recall",
        "diversity",
    } < set(whole["values"])
    assert "InceptionScore(splits=2)" in whole["protocol"]["metrics"]


def test_round_images(whole):
    rounded = evaluating.evaluate(round_images=True)

    assert rounded["protocol"] != whole["protocol"]
    assert rounded["values"] != whole["values"]
    assert rounded["values"] == pytest.approx(whole["values"], rel=0.05)


def save_as_adm(path, images, **arrays):
    np.savez(path, arr_0=to_uint8(images).permute(0, 2, 3, 1).numpy(), **arrays)
    return str(path)


def test_file_scores_as_its_samples(tmp_path):
    labels = balanced_labels(43, 10, 0)
    samples = sample(evaluating.model(), labels, seed=0)
    path = save_as_adm(tmp_path / "samples.npz", samples, arr_1=labels.numpy())

    by_file = evaluate_file(path, Digits(), evaluating.config(num_samples=7))

    expected = evaluating.evaluate(round_images=True)
    assert by_file["values"] == pytest.approx(expected["values"], rel=1e-5)
    assert by_file["protocol"]["num_samples"] == 43
    assert by_file["protocol"]["order"] == "as given"
    assert by_file["protocol"]["seed"] is None


def test_reference_replaces_the_training_data(tmp_path, whole):
    digits = Digits()
    path = save_as_adm(tmp_path / "real.npz", digits.images)
    names = ("FrechetDistance", "SpatialFrechetDistance", "PrecisionRecall")

    found = evaluating.evaluate(reference=path, metrics=names)
    alone = evaluate_model(
        evaluating.model(), None, evaluating.config(reference=path, metrics=names)
    )

    assert found["protocol"]["reference"].startswith("real.npz, SHA-256 ")
    assert alone["protocol"] == found["protocol"]
    assert alone["values"] == found["values"]
    for name, value in alone["values"].items():  # Digits have 17 levels: 0 to 16 become 256.
        assert value == pytest.approx(whole["values"][name], rel=0.02, abs=0.03)


def test_protocol_names_the_reference(tmp_path):
    protocols = []
    for count in (100, 101):
        path = save_as_adm(tmp_path / "real.npz", Digits().images[:count])
        protocols.append(evaluating.evaluate(reference=path, metrics=["FrechetDistance"]))

    assert protocols[0]["protocol"] != protocols[1]["protocol"]


def test_latents_are_decoded_in_batches():
    labels = balanced_labels(43, 10, 0)
    latents = sample(evaluating.model(), labels, seed=0)
    data = evaluating.TensorData(torch.randn(60, 1, 8, 8), torch.arange(60) % 10)
    data.latent_scale = 2.0
    options = dict(extractor="FeaturesOnly", metrics=["FrechetDistance", "Diversity"])
    _build_once.cache_clear()

    found = evaluate_model(
        evaluating.model(latent_scale=2.0),
        data,
        evaluating.config(autoencoder="Halving", **options),
    )

    decode = evaluating.Halving().decode
    images = evaluating.TensorData(decode(data.latents), data.labels)
    expected = evaluate_samples(decode(latents), labels, images, evaluating.config(**options))
    assert found["values"] == pytest.approx(expected["values"], rel=1e-5)
    assert found["protocol"]["autoencoder"].startswith("Halving-")
    assert found["protocol"]["reference"] == "TensorData, 60 training samples"
    assert _build_once(evaluating.AUTOENCODERS, '"Halving"').most <= 16


# --- Interrupted ---


@pytest.fixture(scope="module")
def of_two(tmp_path_factory):
    """What two processes say that go on with what one began, which was killed; and what it left."""
    folder = tmp_path_factory.mktemp("evaluating")
    child = os.fork()
    if not child:
        shards_module.SHARD_SIZE = 8
        evaluating.evaluate(str(folder), dies_after=26)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    left = kept(folder)
    command = [sys.executable, *LAUNCH, str(SCRIPT), str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-5000:]
    return json.loads((folder / "results.json").read_text()), left, kept(folder)


def test_kill_leaves_complete_shards(of_two):
    _, left, after = of_two

    assert left == ["000000000.safetensors", "000000008.safetensors", "000000016.safetensors"]
    assert after == []


@pytest.mark.parametrize("name", ["resumed", "anew"])
def test_two_processes_equal_one(of_two, whole, name):
    found = of_two[0][name]

    assert found["protocol"] == whole["protocol"]
    # More threads add the terms of a sum in another order.
    assert found["values"] == pytest.approx(whole["values"], rel=1e-9, abs=1e-12)
    assert found["values"]["precision"] == whole["values"]["precision"]


def test_failed_share_raises_in_the_first_process(of_two):
    assert of_two[0]["failed"] == "The computation failed in another process."


class Stopped(BaseException):
    pass


def interrupt(folder, after, **options):
    """Interrupts an evaluation as a signal does, from within."""
    model = evaluating.model()

    def stop(module, inputs):
        if module.made >= after:
            raise Stopped

    model.generator.register_forward_pre_hook(stop)
    with pytest.raises(Stopped):
        evaluate_model(model, Digits(), evaluating.config(**options), work_dir=str(folder))


def resume(folder, model=None, **options):
    model = evaluating.model() if model is None else model
    extractor = build_extractor("Projection")
    before = extractor.seen
    result = evaluate_model(
        model, Digits(), evaluating.config(**options), work_dir=str(folder), resume=True
    )
    return result, model.generator.made, extractor.seen - before


def test_interrupt_keeps_finished_images(tmp_path, whole):
    interrupt(tmp_path, after=20)

    result, made, _ = resume(tmp_path)

    assert result == whole
    assert made == 43 - 20
    assert not kept(tmp_path)


def test_failed_metric_keeps_all_rows(tmp_path, monkeypatch):
    def fail(self, evaluation):
        raise ValueError("not today")

    with monkeypatch.context() as patch:
        patch.setattr("afmlib.metrics.kernel_distance.KernelDistance.__call__", fail)
        with pytest.raises(EvaluationError, match="KernelDistance cannot be computed: not today"):
            evaluating.evaluate(str(tmp_path), metrics=["FrechetDistance", kid(43)])

    result, made, extracted = resume(tmp_path, metrics=["FrechetDistance", kid(43)])

    assert made == 0
    assert extracted == len(Digits())
    assert "kernel_distance" in result["values"]


def kid(subset_size):
    return {"type": "KernelDistance", "subsets": 2, "subset_size": subset_size}


@pytest.mark.parametrize(
    "change",
    [
        dict(seed=1),
        dict(nfe=2),
        dict(num_samples=44),
        dict(batch_size=5),
        dict(round_images=True),
        dict(metrics=["Diversity"]),
        dict(model="other weights"),
    ],
)
def test_shards_of_another_evaluation_are_ignored(tmp_path, change):
    interrupt(tmp_path, after=20)
    before = kept(tmp_path)
    model = evaluating.model()
    if change.pop("model", None):
        with torch.no_grad():
            model.generator.scale += 1e-6

    result, made, _ = resume(tmp_path, model, **change)

    assert made == result["protocol"]["num_samples"] * (change.get("nfe") or 1)
    assert kept(tmp_path) == before


DIT = dict(
    type="DiTGenerator",
    input_size=8,
    in_channels=1,
    hidden_size=16,
    depth=1,
    num_heads=2,
    num_classes=10,
    use_timestep_src=True,
)
DEEP = dict(type="RepeatDepth", repeats=2, generator=DIT)


@pytest.mark.parametrize(
    "other",
    [
        DEEP | dict(repeats=4),
        DEEP | dict(type="RepeatBlocks"),
        DEEP | dict(generator=DIT | dict(num_heads=4)),
        DEEP | dict(generator=DIT | dict(time_scale=1.0)),
    ],
)
def test_key_depends_on_the_architecture(other):
    state = build_generator(DEEP).state_dict()

    def key(spec):
        generator = build_generator(spec)
        generator.load_state_dict(state, strict=True)
        conventions = evaluating.model().conventions
        model = SampleModel(generator, SamplePrediction(), conventions)
        return key_of(ModelSource(model, None, evaluating.config(), None).identity())

    assert key(other) != key(DEEP) == key(DEEP)


def test_corrupt_shard_is_redone(tmp_path, small_parts, whole, caplog):
    interrupt(tmp_path, after=24)
    (second,) = tmp_path.rglob("000000008.safetensors")
    content = second.read_bytes()
    second.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))

    result, made, _ = resume(tmp_path)

    assert result == whole
    assert made == 43 - 24 + 8
    assert "images of a shard are made again" in caplog.text


def test_existing_shards_need_resume(tmp_path):
    interrupt(tmp_path, after=20)

    with pytest.raises(FileExistsError, match=r"a part of this evaluation.*--resume"):
        evaluating.evaluate(str(tmp_path))
    assert evaluating.evaluate(str(tmp_path), seed=1)["protocol"]["seed"] == 1


def test_shards_on_an_object_store(s3_folder, whole):
    interrupt(s3_folder, after=20)

    assert resume(s3_folder)[0] == whole


# --- Refused before any work is done ---


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(extractor=None, metrics=["PrecisionRecall"], latent=32), "set evaluation.extr"),
        (dict(autoencoder="Halving"), "the samples are not latents"),
        (
            dict(autoencoder={"type": "Halving", "latent_scale": 3.0}, latent_scale=2.0),
            "latent_scale is 3, and that of the samples is 2",
        ),
        (dict(latent_scale=2.0), "the samples are latents: set evaluation.autoencoder"),
        (
            dict(extractor="FeaturesOnly"),
            "SpatialFrechetDistance needs spatial; .* has only features",
        ),
    ],
)
def test_unfit_protocol_raises_before_sampling(options, message):
    size, scale = options.pop("latent", 8), options.pop("latent_scale", 1.0)
    model = evaluating.model(latent_scale=scale)
    object.__setattr__(model.conventions, "latent_shape", (2, size, size))
    data = evaluating.TensorData(torch.randn(20, 2, size, size), torch.arange(20) % 10)
    data.latent_scale = scale

    with pytest.raises(ConfigError, match=message):
        evaluate_model(model, data, evaluating.config(**options))

    assert model.generator.made == 0


@evaluating.EXTRACTORS.register_module()
class FeaturesOnly(evaluating.FeatureExtractor):
    name = "features only"

    def forward(self, images):
        return images.flatten(1)


def test_missing_reference_raises_before_any_work(tmp_path):
    model = evaluating.model()

    with pytest.raises(ConfigError, match=r"evaluation.reference: .*nowhere.npz"):
        evaluate_model(model, None, evaluating.config(reference=str(tmp_path / "nowhere.npz")))

    assert model.generator.made == 0


def test_file_without_labels_or_data(tmp_path):
    path = save_as_adm(tmp_path / "samples.npz", Digits().images[:40])

    with pytest.raises(ConfigError, match=r"Diversity cannot be computed: .* class"):
        evaluate_file(path, Digits(), evaluating.config(metrics=["Diversity"]))
    with pytest.raises(ConfigError, match="training data, and there are none"):
        evaluate_file(path, None, evaluating.config(metrics=["NearestTrainingImage"]))
    np.savez(tmp_path / "samples.npz", arr_0=np.zeros((3, 8, 8, 1), np.uint8), arr_1=np.ones(2))
    with pytest.raises(NpzError, match=r"labels of 3 images are whole numbers of shape \(3,\)"):
        evaluate_file(path, Digits(), evaluating.config())
