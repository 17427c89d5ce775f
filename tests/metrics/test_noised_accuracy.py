"""Tests for afmlib.metrics.noised_accuracy."""

import pytest
import torch

from afmlib.data.digits import Digits
from afmlib.interfaces import Classifier
from afmlib.metrics.evaluation import EvaluationData
from afmlib.metrics.noised_accuracy import NoisedAccuracy


class Sign(Classifier):
    """Tells positive means from negative ones; remembers what it was given."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, latents, timesteps):
        self.seen.append((latents, timesteps))
        means = latents.flatten(1).mean(1)
        return torch.stack([-means, means], 1)


def evaluation(classifier, count=150):
    labels = torch.arange(count) % 2
    samples = (2.0 * labels - 1)[:, None].expand(count, 3)
    noises = torch.randn(count, 3)
    return EvaluationData(
        samples=samples, labels=labels, dataset=Digits(), noises=noises, classifier=classifier
    )


def test_accuracy_at_each_time():
    torch.manual_seed(0)
    judged = evaluation(Sign())

    values = NoisedAccuracy([0, 0.25, 0.6, 1])(judged)

    assert list(values) == ["accuracy_at_0", "accuracy_at_0.25", "accuracy_at_0.6", "accuracy_at_1"]
    for time in (0, 0.25, 0.6, 1):
        means = [
            ((1 - time) * x + time * z).mean() > 0
            for x, z in zip(judged.samples, judged.noises, strict=True)
        ]
        right = [bool(mean) == label for mean, label in zip(means, judged.labels, strict=True)]
        assert values[f"accuracy_at_{time:g}"] == sum(right) / len(right)
    assert values["accuracy_at_0"] == 1 > values["accuracy_at_0.6"] > 0.4


def test_classifier_gets_the_time():
    classifier = Sign()

    NoisedAccuracy([0.25])(evaluation(classifier))

    assert all((times == 0.25).all() for _, times in classifier.seen)
    assert sum(len(times) for _, times in classifier.seen) == 150


def test_missing_classifier_raises():
    with pytest.raises(ValueError, match="for runs of ClassifierTraining"):
        NoisedAccuracy()(evaluation(None))


@pytest.mark.parametrize("timesteps", [[], [-0.1], [1.5], [float("nan")]])
def test_times_outside_the_flow_raise(timesteps):
    with pytest.raises(ValueError, match=r"timesteps must be in \[0, 1\]"):
        NoisedAccuracy(timesteps)
