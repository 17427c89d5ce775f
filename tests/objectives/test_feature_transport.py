"""Tests for afmlib.objectives.feature_transport and its losses."""

import copy
import math
from collections import deque

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from afmlib.interfaces import Generator
from afmlib.losses.feature_transport import FeatureTransportLoss
from afmlib.losses.transport_fields import Drift, Sinkhorn
from afmlib.networks.mlp import MLPGenerator
from afmlib.objectives.feature_transport import FeatureTransport
from afmlib.sampling import guided

pytestmark = pytest.mark.usefixtures("float64")

seeds = st.integers(0, 2**32 - 1)


def problems(seed, n=4, positives=5, negatives=3, size=3):
    numbers = torch.Generator().manual_seed(seed)
    shapes = ((2, n, size), (2, positives, size), (negatives, size), (2, n))
    made = [torch.randn(shape, generator=numbers) for shape in shapes]
    return *made[:3], 1 + made[3].abs()


# --- The fields, number by number ---


def naive_drift(generated, positives, negatives, guidance, radii):
    count, n, size = generated.shape
    cells = {}
    for k in range(count):
        for i in range(n):
            rows = [(y, 1.0, False, j == i) for j, y in enumerate(generated[k])]
            w = float(guidance[k, i] - 1) * (n - 1) / len(negatives)
            rows += [(y, w, False, False) for y in negatives]
            rows += [(y, 1.0, True, False) for y in positives[k]]
            for j, (y, weight, is_positive, is_self) in enumerate(rows):
                distance = math.sqrt(max(float(((generated[k, i] - y) ** 2).sum()), 1e-8))
                cells[k, i, j] = (distance, weight, is_positive, is_self, y)
    m = max(j for *_, j in cells) + 1
    mean = sum(d * w for d, w, *_ in cells.values()) / sum(w for _, w, *_ in cells.values())
    scale = max(mean / math.sqrt(size), 1e-3)
    total, sizes = torch.zeros_like(generated), []
    for radius in radii:
        e = {
            key: math.exp(-(d / max(mean, 1e-3) + 100 * own) / radius)
            for key, (d, _, _, own, _) in cells.items()
        }
        force = torch.zeros_like(generated)
        for k in range(count):
            for i in range(n):
                affinity = {}
                for j in range(m):
                    by_target = e[k, i, j] / sum(e[k, i, other] for other in range(m))
                    column = sum(e[k, other, j] for other in range(n))
                    by_made = e[k, i, j] / column if column else 1 / n
                    affinity[j] = math.sqrt(max(by_target * by_made, 1e-6)) * cells[k, i, j][1]
                same = sum(a for j, a in affinity.items() if cells[k, i, j][2])
                other = sum(a for j, a in affinity.items() if not cells[k, i, j][2])
                for j in range(m):
                    factor = other if cells[k, i, j][2] else -same
                    step = (cells[k, i, j][4] - generated[k, i]) / scale
                    force[k, i] += affinity[j] * factor * step
        sizes.append(float((force**2).mean().sqrt()))
        total += force / sizes[-1]
    return scale, total, sum(sizes) / len(sizes)


@given(seeds)
def test_drift_matches_loops(seed):
    given_ = problems(seed)
    scale, moved, force = Drift([0.2, 0.5])(*given_)

    expected = naive_drift(*given_, [0.2, 0.5])
    torch.testing.assert_close(moved, expected[1], rtol=1e-7, atol=1e-7)
    assert scale.item() == pytest.approx(expected[0])
    assert force.item() == pytest.approx(expected[2])


def barycenters(x, y, width):
    """With the exponentials themselves instead of their logarithms."""
    kernel = (-((x[:, None] - y) ** 2).sum(2) / width).exp()
    a, b = torch.ones(len(x)), torch.ones(len(y))
    for _ in range(4):
        a = 1 / (kernel @ b / len(y))
        b = 1 / (kernel.T @ a / len(x))
    plan = kernel * b
    return plan / plan.sum(1, keepdim=True) @ y


def own_barycenters(x, width):
    kernel = (-((x[:, None] - x) ** 2).sum(2) / width).exp() * (1 - torch.eye(len(x)))
    a = torch.ones(len(x))
    for _ in range(2):
        a = (a / (kernel @ a / len(x))).sqrt()
    plan = kernel * a
    return plan / plan.sum(1, keepdim=True) @ x


def naive_sinkhorn(generated, positives, negatives, guidance, entropies):
    size = generated.shape[2]
    pairs = [(x[:, None] - y).norm(dim=2) for x, y in zip(generated, positives, strict=True)]
    pairs = torch.stack(pairs)
    scale = float(pairs.mean()) / math.sqrt(size)
    costs = (pairs / scale) ** 2
    deviation = float(((costs - costs.mean()) ** 2).mean().sqrt())
    total = torch.zeros_like(generated)
    for width in (entropy * deviation for entropy in entropies):
        for k in range(len(generated)):
            x, p, u = (points / scale for points in (generated[k], positives[k], negatives))
            w = guidance[k][:, None] - 1
            force = (1 + w) * barycenters(x, p, width) - w * barycenters(x, u, width)
            force = force - own_barycenters(x, width)
            total[k] += force / (force**2).mean().sqrt()
    return scale, total


@given(seeds)
def test_sinkhorn_matches_plain_iterations(seed):
    given_ = problems(seed)
    scale, moved, _ = Sinkhorn([0.5, 1.0])(*given_)

    expected = naive_sinkhorn(*given_, [0.5, 1.0])
    assert scale.item() == pytest.approx(expected[0])
    torch.testing.assert_close(moved, expected[1], rtol=1e-6, atol=1e-6)


# --- What ports get wrong ---


def test_scalars_of_drift_are_those_of_all_problems():
    """Sinkhorn divides each problem by its own root mean square."""
    given_ = problems(0)
    given_[0][1] *= 3
    sizes = lambda moved: moved.square().mean((1, 2))
    drift, sinkhorn = (field(*given_)[1] for field in (Drift([0.2]), Sinkhorn([0.2])))
    torch.testing.assert_close(sizes(sinkhorn), torch.ones(2))
    assert drift.square().mean().item() == pytest.approx(1)
    assert not torch.allclose(sizes(drift), torch.ones(2))


def test_drift_attracts_from_far_away():
    """Without the floor of the affinity, the softmaxes would vanish."""
    generated = torch.tensor([[[0.0, 0.0], [0.1, 0.0]]])
    near, far = torch.tensor([0.05, -0.1]), torch.tensor([0.0, 1000.0])
    negatives, ones = torch.zeros(1, 2), torch.ones(1, 2)

    without, moved = (
        Drift([0.02])(generated, torch.stack([near, other])[None], negatives, ones)[1]
        for other in (near, far)
    )

    assert (without[..., 1] < 0).all()
    assert (moved[..., 1] > 0.5).all()  # The far one determines the direction.


def test_value_says_nothing_and_the_force_does():
    torch.manual_seed(0)
    loss = FeatureTransportLoss(Drift([0.2]), [2], 1, 8, 16, 4).double()
    real, classes = torch.randn(8, 2), torch.zeros(8, dtype=torch.long)
    values, forces = [], []
    for shift in (3.0, 0.0):
        rows = torch.randn(8, 2) + shift
        values.append(loss(rows, real, classes, classes, torch.ones(8)).item())
        forces.append(loss.observed["force_1"].item())
    assert values == pytest.approx([1, 1])
    assert forces[0] != pytest.approx(forces[1], rel=0.2)


def moved_to_far_modes(field):
    """Moves points from one of two modes, which have the same weight."""
    numbers = torch.Generator().manual_seed(0)
    points = 0.1 * torch.randn(1, 20, 2, generator=numbers)
    real = 0.1 * torch.randn(1, 40, 2, generator=numbers)
    real[:, ::2, 0] += 10
    for _ in range(100):
        scale, moved, _ = field(points, real, real[0, :4], torch.ones(1, 20))
        points = points + 0.05 * scale * moved
    return points[0, :, 0]


def test_drift_stalls_between_far_modes():
    """With a small radius no point arrives."""
    places = moved_to_far_modes(Drift([0.02]))
    assert 1 < places.mean() < 6
    assert places.max() < 9


def test_sinkhorn_reaches_far_modes():
    """The plan has uniform marginals, so that half of the points must go there."""
    places = moved_to_far_modes(Sinkhorn([0.2]))
    assert 8 <= (places > 8).sum() <= 12


# --- The banks and the loss ---


@given(seeds, st.integers(1, 4), st.integers(1, 7))
def test_banks_hold_the_latest_samples(seed, num_positives, num_negatives):
    numbers = torch.Generator().manual_seed(seed)
    loss = FeatureTransportLoss(Drift(), [1], 3, 2, num_positives, num_negatives).double()
    classes = [deque(maxlen=num_positives) for _ in range(3)]
    everything = deque(maxlen=num_negatives)
    for _ in range(4):
        real = torch.randn(6, 1, generator=numbers)
        labels = torch.randint(3, (6,), generator=numbers)
        rows = torch.randn(6, 1, requires_grad=True)
        before = copy.deepcopy(loss.state_dict())
        value = loss(rows, real, labels, labels.sort()[0], torch.ones(6))
        assert all(torch.equal(before[name], x) for name, x in loss.state_dict().items())
        value.backward()
        for number, label in zip(real[:, 0].tolist(), labels.tolist(), strict=True):
            classes[label].append(number)
            everything.append(number)
        for label, numbers_ in enumerate(classes):
            assert sorted(loss.positives[label, :, 0].tolist()) == pytest.approx(
                sorted([*numbers_, *[0.0] * (num_positives - len(numbers_))])
            )
        held = loss.negatives[:, 0].tolist()
        assert held[len(held) - len(everything) :] == pytest.approx([*everything])


def test_banks_are_part_of_the_state():
    loss = FeatureTransportLoss(Drift(), [1], 3, 2, 4, 8).double()
    labels = torch.arange(6) % 3
    given = torch.randn(6, 1), labels, labels.sort()[0], torch.full((6,), 2.0)
    rows = torch.randn(6, 1, requires_grad=True)
    loss(rows, *given).backward()
    other = FeatureTransportLoss(Drift(), [1], 3, 2, 4, 8).double()

    other.load_state_dict(loss.state_dict())

    values = [each(rows, *given) for each in (loss, other)]
    assert torch.equal(*values)
    assert torch.equal(*(torch.autograd.grad(value, rows)[0] for value in values))


def test_gradient_is_that_of_the_squared_distance_to_fixed_targets():
    torch.manual_seed(0)
    field = Drift([0.2, 0.5])
    loss = FeatureTransportLoss(field, [2, 3], 2, 4, 6, 5).double()
    labels = torch.arange(8) % 2
    classes = labels.sort()[0]
    guidance = 1 + torch.rand(8)
    loss(torch.randn(8, 5, requires_grad=True), torch.randn(8, 5), labels, classes, guidance)
    real, rows = torch.randn(8, 5), torch.randn(8, 5, requires_grad=True)

    value = loss(rows, real, labels, classes, guidance)
    value.backward()

    again, expected = rows.detach().requires_grad_(), 0.0
    slots = torch.arange(6) % 4  # Four of each class so far: the first two count twice.
    for columns in (slice(0, 2), slice(2, 5)):
        positives = torch.stack([real[labels == label][slots] for label in (0, 1)])[..., columns]
        points = again[:, columns].reshape(2, 4, -1)
        with torch.no_grad():
            scale, moved, _ = field(points, positives, real[-5:, columns], guidance.reshape(2, 4))
            targets = points / scale + moved
        expected = expected + (points / scale - targets).square().mean()
    torch.testing.assert_close(value, expected.detach())
    torch.testing.assert_close(rows.grad, torch.autograd.grad(expected, again)[0])


def test_class_without_real_samples_stays():
    loss = FeatureTransportLoss(Drift(), [1], 2, 2, 3, 3).double()
    rows = torch.randn(4, 1, requires_grad=True)
    labels = torch.zeros(4, dtype=torch.long)

    loss(rows, torch.randn(4, 1), labels, torch.tensor([0, 0, 1, 1]), torch.ones(4)).backward()

    assert rows.grad[:2].any()
    assert not rows.grad[2:].any()


def objective_of(**arguments):
    conditions = arguments.pop("conditions", 0)
    generator = MLPGenerator(in_channels=2, hidden_size=4, num_classes=3)
    generator.num_conditions = conditions
    return FeatureTransport(generator, samples_per_class=4, **arguments)


def test_classes_take_turns_and_problems_have_one():
    objective, latents = objective_of(), torch.randn(8, 2)
    seen = []
    objective.generator.forward = lambda noises, labels, *times: seen.append(labels) or noises
    for objective.num_images in (0, 8, 16):
        objective.terms(
            "generator", latents, torch.zeros(8, dtype=torch.long), objective.draw(latents)
        )
    assert [labels.tolist() for labels in seen] == [
        [0] * 4 + [1] * 4,
        [2] * 4 + [0] * 4,
        [1] * 4 + [2] * 4,
    ]


class Unconditional(Generator):
    latent_shape = (2,)

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(2, 2)

    def forward(self, latents, labels, timesteps_src=None, timesteps_tgt=None):
        return self.linear(latents)


def test_generator_without_classes_has_one_bank():
    objective, latents = FeatureTransport(Unconditional(), samples_per_class=4), torch.randn(8, 2)

    terms = objective.terms("generator", latents, torch.zeros(8).long(), objective.draw(latents))
    terms["transport"].backward()

    assert torch.equal(objective.loss.num_seen, torch.tensor([8]))
    torch.testing.assert_close(objective.loss.positives[0, :8], latents)
    assert objective.generator.linear.weight.grad.any()


def test_batch_that_splits_a_problem():
    objective, latents = objective_of(), torch.randn(6, 2)
    with pytest.raises(ValueError, match="not divisible by samples_per_class 4"):
        objective.terms(
            "generator", latents, torch.zeros(6, dtype=torch.long), objective.draw(latents)
        )


@pytest.mark.parametrize("power", [1.0, 3.0, 5.0])
def test_guidance_scales_follow_their_density(power):
    objective = objective_of(max_guidance=4.0, guidance_power=power, conditions=1)
    scales = objective.draw(torch.empty(20_000, 2), torch.Generator().manual_seed(0)).guidance

    grid = torch.linspace(1, 4, 20_001)
    density = grid**-power
    mean = (grid * density).sum() / density.sum()
    assert scales.min() >= 1
    assert scales.max() <= 4
    assert scales.mean().item() == pytest.approx(mean.item(), rel=0.02)


def test_another_guidance_scale_of_samples():
    model = objective_of(max_guidance=4.0, conditions=1).sample_model

    assert guided(model, 2.0).parameterization.conditions == [2.0]
    with pytest.raises(ValueError, match="FeatureTransport takes no guidance scale"):
        guided(objective_of().sample_model, 2.0)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (dict(num_positives=0), "num_positives"),
        (dict(max_guidance=2.0), "num_conditions=1"),
        (dict(sample_guidance=2.0), "sample_guidance"),
        (dict(field=lambda: Drift([])), "radii"),
    ],
)
def test_arguments_out_of_their_domain(arguments, match):
    with pytest.raises(ValueError, match=match):
        objective_of(**{k: v() if callable(v) else v for k, v in arguments.items()})
