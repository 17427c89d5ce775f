"""Tests for afmlib.objectives.classifier_training."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from afmlib import sample
from afmlib.interfaces import Classifier
from afmlib.objectives.classifier_training import ClassifierTraining

pytestmark = pytest.mark.usefixtures("float64")

seeds = st.integers(0, 2**32 - 1)


class Linear(Classifier):
    """Logits that are linear in the latents and depend on the time."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(3, 4))

    def forward(self, latents, timesteps):
        return (2 - timesteps)[:, None] * (latents @ self.weight.T)


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


@given(seeds, st.integers(1, 6))
def test_term_matches_cross_entropy(seed, batch):
    torch.manual_seed(seed)
    objective = ClassifierTraining(Linear())
    x, labels = torch.randn(batch, 4), torch.randint(3, (batch,))
    draws = objective.draw(x)

    terms = objective.terms("classifier", x, labels, draws)
    terms["cross_entropy"].backward()

    weight = objective.classifier.weight.detach()
    value, slope, right = 0.0, torch.zeros(3, 4), []
    for row in range(batch):
        t, c = float(draws.timesteps[row]), int(labels[row])
        noised = (1 - t) * x[row] + t * draws.noises[row]
        odds = [math.exp((2 - t) * float(weight[k] @ noised)) for k in range(3)]
        value -= math.log(odds[c] / sum(odds)) / batch
        for k in range(3):
            slope[k] += (2 - t) * (odds[k] / sum(odds) - (k == c)) * noised / batch
        right.append(float(max(range(3), key=odds.__getitem__) == c))
    assert list(terms) == ["cross_entropy"]
    assert terms["cross_entropy"].item() == pytest.approx(value)
    torch.testing.assert_close(objective.classifier.weight.grad, slope)
    assert terms.observed["accuracy"].tolist() == right


def test_distribution_of_draws():
    draws = ClassifierTraining(Linear()).draw(torch.empty(20_000, 4), stream())

    for share in (0.1, 0.5, 0.9):
        assert (draws.timesteps < share).double().mean() == pytest.approx(share, abs=0.02)
    assert draws.noises.mean().abs() < 0.02
    assert draws.noises.std() == pytest.approx(1, abs=0.02)


def test_classifier_is_the_only_player():
    objective = ClassifierTraining(Linear())

    assert list(objective.players) == ["classifier"]
    assert objective.network_names == ["classifier", "classifier_ema"]
    assert objective.ema is objective.classifier_ema
    assert not any(parameter.requires_grad for parameter in objective.ema.parameters())


def test_sample_model_raises():
    objective = ClassifierTraining(Linear())

    assert objective.sample_model is None
    with pytest.raises(ValueError, match="ClassifierTraining trains no generator"):
        sample(objective, [0, 1])
