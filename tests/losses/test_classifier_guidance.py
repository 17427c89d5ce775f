"""Tests for afmlib.losses.classifier_guidance."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from afmlib.interfaces import Classifier
from afmlib.losses.classifier_guidance import ClassifierGuidance, TargetClassifierGuidance
from afmlib.ops.time_grid import draw_fixed_steps

pytestmark = pytest.mark.usefixtures("float64")

seeds = st.integers(0, 2**32 - 1)
scales = st.floats(0, 10)
CLASSES = 3


class Bilinear(Classifier):
    """Logits that depend on latents and times, with a slope that is known."""

    def __init__(self, size=4):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(CLASSES, size))
        self.dropout = torch.nn.Dropout(0.5)

    def forward(self, latents, timesteps):
        return (1 + timesteps)[:, None] * (self.dropout(latents.flatten(1)) @ self.weight.T)


def inputs(batch=5):
    return (
        torch.randn(batch, 1, 2, 2),
        torch.randint(CLASSES, (batch,)),
        torch.rand(batch),
        torch.randn(batch, 1, 2, 2),
        torch.rand(batch),
    )


def naive(classifier, samples, labels, noises, times):
    """Returns value and slope of the cross-entropy, sample by sample, by the closed form."""
    values, slopes = [], []
    for x, c, z, t in zip(samples, labels.tolist(), noises, times.tolist(), strict=True):
        noised = ((1 - t) * x + t * z).flatten()
        logits = [(1 + t) * float(row @ noised) for row in classifier.weight]
        odds = [math.exp(logit) for logit in logits]
        probabilities = [odd / sum(odds) for odd in odds]
        values.append(-math.log(probabilities[c]))
        expected = sum(p * row for p, row in zip(probabilities, classifier.weight, strict=True))
        slopes.append((1 - t) * (1 + t) * (expected - classifier.weight[c]).reshape(x.shape))
    return torch.tensor(values), torch.stack(slopes)


def slope_of(guidance, samples, *others):
    samples = samples.clone().requires_grad_()
    values = guidance(samples, *others)
    (slope,) = torch.autograd.grad(values.sum(), samples)
    return values, slope


@given(seeds, scales)
def test_cross_entropy_of_renoised_samples(seed, scale):
    torch.manual_seed(seed)
    samples, labels, targets, noises, times = inputs()
    guidance = ClassifierGuidance(Bilinear(), scale)

    values, slope = slope_of(guidance, samples, labels, targets, noises, times)

    expected = naive(guidance.classifier, samples, labels, noises, times)
    torch.testing.assert_close(values, scale * expected[0])
    torch.testing.assert_close(slope, scale * expected[1])


@given(seeds, scales, st.sampled_from([2, 3, 4, 49]))
def test_cross_entropy_at_targets_only(seed, scale, nfe):
    torch.manual_seed(seed)
    samples, labels, _, noises, times = inputs(8)
    _, targets = draw_fixed_steps(torch.rand(8, dtype=torch.float32), nfe)
    listed = [0.0, 1 / nfe]
    guidance = TargetClassifierGuidance(Bilinear(), scale, listed)

    values, slope = slope_of(guidance, samples, labels, targets, noises, times)

    for row, target in enumerate(targets.tolist()):
        kept = round(target * nfe) in (0, 1)
        # Not re-noised: the sample, at its target time.
        logits = (1 + target) * samples[row].flatten() @ guidance.classifier.weight.T
        expected = -logits.log_softmax(-1)[labels[row]] if kept else torch.tensor(0.0)
        torch.testing.assert_close(values[row], scale * expected, atol=1e-6, rtol=1e-6)
        assert kept or not slope[row].any()


def test_target_ranges():
    guidance = TargetClassifierGuidance(Bilinear(), 1.0, [[0.2, 0.4], 0.75])
    samples, labels, _, noises, times = inputs(7)
    targets = torch.tensor([0.0, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0])

    values = guidance(samples, labels, targets, noises, times)

    assert (values != 0).tolist() == [False, True, True, True, False, True, False]


def test_masked_loss_may_be_infinite():
    class Sure(Classifier):
        def forward(self, latents, timesteps):
            return torch.stack([0 * latents.flatten(1).sum(1), timesteps * -math.inf], 1)

    samples, _, _, noises, times = inputs(2)
    guidance = TargetClassifierGuidance(Sure(), 1.0, [0.5])

    values = guidance(samples, torch.tensor([0, 1]), torch.tensor([0.5, 0.9]), noises, times)

    assert values.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    "guidance",
    [
        ClassifierGuidance(Bilinear().train(), 1.0),
        TargetClassifierGuidance(Bilinear().train(), 1.0, [0]),
    ],
)
def test_classifier_is_frozen_in_eval_mode(guidance):
    owner = torch.nn.ModuleList([guidance]).train()

    assert not any(p.requires_grad for p in owner.parameters())
    assert not any(module.training for module in guidance.classifier.modules())


def test_mean_is_over_whole_batch():
    torch.manual_seed(0)
    samples, labels, _, noises, times = inputs(4)
    guidance = TargetClassifierGuidance(Bilinear(), 1.0, [0])

    every = guidance(samples, labels, torch.zeros(4), noises, times)
    half = guidance(samples, labels, torch.tensor([0.0, 0.5, 0.0, 0.5]), noises, times)

    assert half.mean() == (every[0] + every[2]) / 4


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda c: ClassifierGuidance(c, -1.0), "scale must not be negative, got -1.0"),
        (lambda c: ClassifierGuidance(c, float("nan")), "scale must not be negative"),
        (lambda c: ClassifierGuidance(c, 1.0, (0.5, 0.1)), r"timesteps must be .* got \[0.5"),
        (lambda c: ClassifierGuidance(c, 1.0, (0.0, 1.5)), "timesteps must be a range"),
        (lambda c: ClassifierGuidance(c, 1.0, (0.0,)), "timesteps must be a range"),
        (lambda c: TargetClassifierGuidance(c, -1.0, [0]), "scale must not be negative"),
        (lambda c: TargetClassifierGuidance(c, 1.0, []), "at least one target time"),
        (lambda c: TargetClassifierGuidance(c, 1.0, [2.0]), "A target must be a range"),
        (lambda c: TargetClassifierGuidance(c, 1.0, [[0.5, 0.1]]), "A target must be a range"),
    ],
)
def test_invalid_arguments_raise(make, message):
    with pytest.raises(ValueError, match=message):
        make(Bilinear())


@pytest.mark.parametrize(
    ("guidance", "nfe", "message"),
    [
        (ClassifierGuidance(Bilinear(), 1.0), 2, "got nfe 2: use TargetClassifierGuidance"),
        (ClassifierGuidance(Bilinear(), 1.0), "any", "got nfe 'any': use TargetClassifierGuid"),
        (TargetClassifierGuidance(Bilinear(), 1.0, [0.0]), "any", "target 0.0: give ranges"),
        (TargetClassifierGuidance(Bilinear(), 1.0, [[0, 1], 0.5]), "any", "target 0.5: give"),
        (
            TargetClassifierGuidance(Bilinear(), 1.0, [0.3]),
            4,
            "nfe 4 no step .* 0.3.* i / 4",
        ),
        (TargetClassifierGuidance(Bilinear(), 1.0, [0, 0.25]), 2, "nfe 2 no step .* target 0.25"),
        (TargetClassifierGuidance(Bilinear(), 1.0, [1.0]), 2, "nfe 2 no step .* target 1.0"),
        (TargetClassifierGuidance(Bilinear(), 1.0, [[0.6, 0.9]]), 2, r"target \[0.6, 0.9\]"),
    ],
)
def test_unsupported_nfe_raises(guidance, nfe, message):
    with pytest.raises(ValueError, match=message):
        guidance.check_steps(nfe)


def test_supported_nfe():
    ClassifierGuidance(Bilinear(), 1.0).check_steps(1)
    for nfe, targets in ((1, [0]), (2, [0]), (4, [0, 0.25]), (3, [1 / 3]), ("any", [[0, 0.25]])):
        TargetClassifierGuidance(Bilinear(), 1.0, targets).check_steps(nfe)
