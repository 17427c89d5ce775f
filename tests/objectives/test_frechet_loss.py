"""Tests for afmlib.objectives.frechet_loss and afmlib.losses.frechet."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from afmlib.data.digits import Digits
from afmlib.data.points import EightGaussians, FourGaussians
from afmlib.interfaces import FeatureExtractor, Generator
from afmlib.losses.frechet import FrechetLossOfMoments, frechet_distance_to
from afmlib.metrics.frechet_distance import frechet_distance
from afmlib.metrics.rgb import to_rgb_bytes
from afmlib.networks.mlp import MLPGenerator
from afmlib.objectives.frechet_loss import FrechetLoss
from afmlib.parameterizations import VelocityPrediction

pytestmark = pytest.mark.usefixtures("float64")

seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(1, 5)


def covariance(rows):
    return (rows - rows.mean(0)).T @ (rows - rows.mean(0)) / len(rows)


def distance_by_eigenvalues(rows, real):
    """The textbook formula, with the eigenvalues of the product, which is not symmetric."""
    product = covariance(rows) @ covariance(real)
    roots = torch.linalg.eigvals(product).real.clamp(min=0).sqrt().sum()
    shift = (rows.mean(0) - real.mean(0)).square().sum()
    return shift + covariance(rows).trace() + covariance(real).trace() - 2 * roots


def started(seed, num_features, queue_size, decay=None):
    torch.manual_seed(seed)
    loss = FrechetLossOfMoments(num_features, queue_size, decay).double()
    mix = torch.randn(num_features, num_features)
    real = torch.randn(40, num_features) @ mix + 1
    made = torch.randn(queue_size, num_features)
    loss.start(real, made)
    return loss, real, made


# --- Against the formula ---


@given(seeds, sizes)
def test_queue_matches_the_distance_of_its_rows(seed, size):
    """The rows of a batch replace the oldest ones, and only they have a gradient."""
    loss, real, made = started(seed, size, queue_size=21)
    for _ in range(5):  # 30 rows: more than once around.
        batch = torch.randn(6, size, requires_grad=True)
        value = loss(batch)
        value.backward()

        made = torch.cat([made, batch.detach()])[-21:]
        again = batch.detach().requires_grad_()
        expected = distance_by_eigenvalues(torch.cat([made[:-6], again]), real)
        (gradient,) = torch.autograd.grad(expected / (expected.detach() + 0.01), again)
        torch.testing.assert_close(loss.observed["frechet_distance"], expected.detach())
        torch.testing.assert_close(value, expected / (expected + 0.01))
        torch.testing.assert_close(batch.grad, gradient, rtol=1e-6, atol=1e-9)


@given(seeds, sizes, st.floats(0, 0.99))
def test_averages_match_their_recursion(seed, size, decay):
    loss, real, made = started(seed, size, 20, decay)
    mean, second = made.mean(0), made.T @ made / 20
    for _ in range(3):
        batch = torch.randn(9, size, requires_grad=True)
        loss(batch).backward()

        mean = decay * mean + (1 - decay) * batch.mean(0)
        second = decay * second + (1 - decay) * batch.T @ batch / 9
        expected = frechet_distance_to(
            mean, second - torch.outer(mean, mean), real.mean(0), covariance(real)
        )
        (gradient,) = torch.autograd.grad(expected / (expected.detach() + 0.01), batch)
        torch.testing.assert_close(batch.grad, gradient)
        mean, second = mean.detach(), second.detach()
    torch.testing.assert_close(loss.mean, mean)
    torch.testing.assert_close(loss.second, second)
    assert loss.queue.numel() == 0


@given(seeds, sizes)
def test_distance_matches_the_metric(seed, size):
    torch.manual_seed(seed)
    rows, real = torch.randn(30, size), 2 * torch.randn(30, size)
    ours = distance = frechet_distance_to(
        rows.mean(0), covariance(rows) * 30 / 29, real.mean(0), covariance(real) * 30 / 29
    )
    assert ours.item() == pytest.approx(frechet_distance(rows, real), rel=1e-5, abs=1e-5)
    assert distance.isfinite()


# --- What ports get wrong ---


def test_features_that_are_constant_have_a_finite_gradient():
    """The root of an eigenvalue that is zero has an infinite slope."""
    loss = FrechetLossOfMoments(3, 12).double()
    real, made = torch.randn(20, 3), torch.randn(12, 3)
    real[:, 2], made[:, 2] = 0, 0
    loss.start(real, made)
    batch = torch.randn(4, 3)
    batch[:, 2] = 0
    batch.requires_grad_()

    loss(batch).backward()

    assert batch.grad.isfinite().all()
    assert batch.grad[:, :2].any()


def test_forward_changes_no_state_and_backward_changes_it_once():
    loss, _, _ = started(0, 2, 8)
    before = copy.deepcopy(loss.state_dict())
    batch = torch.randn(4, 2, requires_grad=True)

    value = loss(batch)
    assert all(torch.equal(before[name], x) for name, x in loss.state_dict().items())
    loss.begin()
    value.backward()
    assert loss.position == 4
    loss.rollback()
    assert all(torch.equal(before[name], x) for name, x in loss.state_dict().items())


@pytest.mark.parametrize("processes", [1, 2])
def test_gradient_does_not_shrink_with_the_number_of_parts(processes, monkeypatch):
    """Gathering features and keeping the own gradient, as the authors do, divides it."""
    loss, _, _ = started(0, 3, 12)
    batch = torch.randn(8, 3)
    whole = batch.clone().requires_grad_()
    copy.deepcopy(loss)(whole).backward()

    monkeypatch.setattr("afmlib.processes.size", lambda: processes)
    monkeypatch.setattr("afmlib.processes.all_rows", lambda rows: batch)
    parts = [batch[index :: 2 * processes].clone().requires_grad_() for index in (0, processes)]
    loss.begin()
    loss.measure()
    for part in parts:
        loss(part)
    loss.replay()
    for part, index in zip(parts, (0, processes), strict=True):
        loss(part).backward()
        expected = whole.grad[index :: 2 * processes] * 2 * processes  # The step takes the mean.
        torch.testing.assert_close(part.grad, expected)
    assert loss.position == 8


def test_moments_are_in_float64_in_a_run_in_float32():
    """The mean of a square minus the square of the mean cancels most digits of float32."""
    torch.manual_seed(0)
    loss = FrechetLossOfMoments(2, 64)
    loss.queue = loss.queue.float()
    real, made, batch = (1000 + torch.randn(64, 2).float() for _ in range(3))

    loss.start(real, made)
    loss(batch[:16])

    expected = distance_by_eigenvalues(torch.cat([made[16:], batch[:16]]).double(), real.double())
    assert loss.observed["frechet_distance"].item() == pytest.approx(expected.item(), rel=1e-6)


class Shifted(FeatureExtractor):
    name = "shifted"

    def forward(self, images):
        return (images + 3.0).square()


def test_real_moments_are_those_of_the_training_data_by_the_same_extractor():
    data = EightGaussians()
    objective = FrechetLoss(Affine(), data, [Shifted()], num_samples=8)
    objective.moments[0].begin()
    latents, labels = torch.zeros(4, 2), torch.zeros(4, dtype=torch.long)

    objective.terms("generator", latents, labels, objective.draw(latents))

    features = Shifted()(data.__getitems__(range(len(data)))[0].double())
    torch.testing.assert_close(objective.moments[0].real_mean, features.mean(0))
    torch.testing.assert_close(objective.moments[0].real_covariance, covariance(features))


class Rounded(FeatureExtractor):
    name = "rounded"

    def forward(self, images):
        return to_rgb_bytes(images).float().flatten(1)


def test_extractor_that_rounds_is_refused():
    generator = MLPGenerator(in_channels=1, hidden_size=4, num_classes=10)
    generator.latent_shape = (1, 8, 8)
    with pytest.raises(ValueError, match="Rounded has no gradient"):
        FrechetLoss(generator, Digits(), [Rounded()])


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (dict(num_samples=1), "num_samples"),
        (dict(decay=1.0), "decay"),
        (dict(data=FourGaussians()), "objective.data"),
    ],
)
def test_arguments_out_of_their_domain(arguments, match):
    with pytest.raises(ValueError, match=match):
        FrechetLoss(
            MLPGenerator(in_channels=2, hidden_size=4, num_classes=1),
            **{"data": EightGaussians(), **arguments},
        )


def test_batch_larger_than_the_queue():
    loss, _, _ = started(0, 2, 8)
    with pytest.raises(ValueError, match="increase num_samples, or give a decay"):
        loss(torch.randn(9, 2))


# --- Training ---


class Affine(Generator):
    """Turns noise into a Gaussian."""

    latent_shape, num_classes = (2,), 8

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 2)

    def forward(self, latents, labels, timesteps_src=None, timesteps_tgt=None):
        return self.linear(latents)


@pytest.mark.parametrize("decay", [None, 0.5])
def test_affine_generator_learns_the_moments(decay):
    """The covariance of W z is W W'."""
    data = EightGaussians()
    objective = FrechetLoss(Affine().double(), data, num_samples=2000, decay=decay)
    objective.moments[0].begin()  # As an update does.
    latents = torch.zeros(500, 2)
    optimizer = torch.optim.Adam(objective.generator.parameters(), lr=0.05)
    numbers = torch.Generator().manual_seed(0)
    distances = []
    for step in range(150):
        for group in optimizer.param_groups:
            group["lr"] = 0.05 * (1 - step / 150)
        draws = objective.draw(latents, numbers)
        terms = objective.terms("generator", latents, torch.zeros(500, dtype=torch.long), draws)
        optimizer.zero_grad()
        sum(terms.values()).backward()
        optimizer.step()
        distances.append(terms.observed["frechet_distance_1"].item())

    weight = objective.generator.linear.weight
    real = objective.moments[0].real_covariance
    assert distances[-1] < 0.02 < distances[0]
    torch.testing.assert_close(weight @ weight.T, real, atol=0.1, rtol=0.1)


def test_start_uses_the_parameterization_and_the_labels_of_the_data():
    seen = []

    class Recorder(Affine):
        def forward(self, latents, labels, timesteps_src=None, timesteps_tgt=None):
            seen.append((labels, timesteps_src, timesteps_tgt, self.training))
            return super().forward(latents, labels)

    data = EightGaussians()
    objective = FrechetLoss(Recorder(), data, parameterization=VelocityPrediction(), num_samples=7)
    latents, labels = torch.zeros(4, 2), torch.zeros(4, dtype=torch.long)
    objective.terms("generator", latents, labels, objective.draw(latents))
    assert not objective.moments[0].is_started  # A check before init_from has loaded weights.
    seen.clear()
    objective.moments[0].begin()
    objective.terms("generator", latents, labels, objective.draw(latents))

    assert [len(labels) for labels, *_ in seen] == [7, 4]
    assert [training for *_, training in seen] == [False, True]
    assert torch.equal(seen[0][0], data.__getitems__(range(7))[1])
    assert all((s == 1).all() and (t == 0).all() for _, s, t, _ in seen)
