"""Tests for afmlib.objectives.mean_flow."""

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from afmlib.derivatives import FiniteDifferenceJVP
from afmlib.interfaces import Generator
from afmlib.networks.dit import DiTGenerator
from afmlib.objectives.mean_flow import MeanFlow, MeanFlowDraws
from afmlib.sampling import sample

pytestmark = pytest.mark.usefixtures("float64")

seeds = st.integers(0, 2**32 - 1)
NULL = 3


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def transformer(class_dropout_prob=0.0, attention="auto"):
    generator = DiTGenerator(
        input_size=4,
        in_channels=2,
        hidden_size=8,
        depth=2,
        num_heads=2,
        num_classes=NULL,
        class_dropout_prob=class_dropout_prob,
        attention=attention,
        use_timestep_src=True,
        use_timestep_tgt=True,
        time_scale=1.0,
    )
    for parameter in generator.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.3)
    return generator


class Recorder(Generator):
    """Depends on all that it is given, and remembers it."""

    embeds_timestep_src = embeds_timestep_tgt = True

    latent_shape = (3,)
    num_classes = 5

    def __init__(self, class_dropout_prob=0.0, dropout=0.5):
        super().__init__()
        self.class_dropout_prob = class_dropout_prob
        self.weight = nn.Parameter(torch.tensor(0.7))
        self.dropout = nn.Dropout(dropout)
        self.seen = []

    def forward(self, latents, labels, timesteps_src=None, timesteps_tgt=None):
        s, t = timesteps_src[:, None], timesteps_tgt[:, None]
        self.seen.append((labels, timesteps_src, timesteps_tgt, self.training))
        return self.dropout(self.weight * torch.sin(latents + labels[:, None]) * (1 + s * t))


# --- Against the paper's algorithm, sample by sample ---


def naive_loss(generator, latents, labels, draws, omega=1.0, kappa=0.0, low=0.0, high=1.0, p=1.0):
    """Algorithm 1 with the guided target of Eq. 19, one sample at a time."""
    losses = []
    for i in range(len(latents)):
        x, z = latents[i : i + 1], draws.noises_src[i : i + 1]
        s, t = draws.timesteps_src[i : i + 1], draws.timesteps_tgt[i : i + 1]
        point, velocity, label = (1 - s) * x + s * z, z - x, labels[i : i + 1]
        null = torch.tensor([NULL])
        if draws.label_drops[i]:
            label = null
        elif low <= s <= high and (omega, kappa) != (1, 0):
            own, other = (generator(point, name, s, s).detach() for name in (label, null))
            velocity = omega * velocity + (1 - omega - kappa) * other + kappa * own
        mean = lambda x, s, t, label=label: generator(x, label, s, t)
        _, slope = torch.autograd.functional.jvp(  # By two backward passes.
            mean, (point, s, t), (velocity, torch.ones(1), torch.zeros(1))
        )
        target = velocity - (s - t) * slope
        error = ((generator(point, label, s, t) - target.detach()) ** 2).sum()
        losses.append(error / (error.detach() + 0.01) ** p)
    return sum(losses) / len(losses)


SETTINGS = [
    dict(),
    dict(p=0.5),
    dict(omega=1.0, kappa=0.5),
    dict(omega=0.2, kappa=0.92, low=0.2, high=0.75),
    dict(omega=0.5, kappa=0.5),
]


@pytest.mark.parametrize("setting", SETTINGS)
def test_term_and_gradients_match_algorithm(setting):
    generator = transformer(class_dropout_prob=0.25)
    arguments = {name: setting[name] for name in ("omega", "kappa") if name in setting}
    objective = MeanFlow(
        generator,
        unequal_fraction=0.5,
        guidance_interval=(setting.get("low", 0.0), setting.get("high", 1.0)),
        weight_power=setting.get("p", 1.0),
        **arguments,
    )
    latents, labels = torch.randn(8, 2, 4, 4), torch.randint(NULL, (8,))
    draws = objective.draw(latents)
    assert draws.label_drops.sum() == 2

    terms = objective.terms("generator", latents, labels, draws)
    terms["velocity"].backward()

    expected = naive_loss(generator, latents, labels, draws, **setting)
    assert list(terms) == ["velocity"]
    torch.testing.assert_close(terms["velocity"], expected, rtol=1e-10, atol=1e-10)
    trained = [parameter for parameter in generator.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(expected, trained)
    for parameter, gradient in zip(trained, gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-9, atol=1e-9)
        assert gradient.abs().max() > 0


@pytest.mark.parametrize("size", [1, 2, 4])
def test_micro_batches_without_unequal_times(size):
    generator = transformer(class_dropout_prob=0.25)
    objective = MeanFlow(generator, unequal_fraction=0.5)
    latents, labels = torch.randn(8, 2, 4, 4), torch.randint(NULL, (8,))
    draws = objective.draw(latents)
    trained = [parameter for parameter in generator.parameters() if parameter.requires_grad]

    def gradients(rows):
        own = {name: x[rows] for name, x in vars(draws).items() if name != "unequal"}
        differ = own["timesteps_src"] != own["timesteps_tgt"]
        part = MeanFlowDraws(
            **own, unequal=differ.nonzero().flatten() if differ.any() else torch.tensor([0])
        )
        loss = objective.terms("generator", latents[rows], labels[rows], part)["velocity"]
        expected = naive_loss(generator, latents[rows], labels[rows], part)
        torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-10)
        return torch.autograd.grad(loss, trained)

    whole = gradients(torch.arange(8))
    parts = [gradients(rows) for rows in torch.arange(8).split(size)]
    mixed = gradients(torch.randperm(8))  # Unequal times at any place.

    for value, own, *others in zip(whole, mixed, *parts, strict=True):
        torch.testing.assert_close(own, value, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(sum(others) / len(others), value, rtol=1e-9, atol=1e-9)


def test_finite_differences_on_fused_attention():
    exact, difference = (
        MeanFlow(transformer(attention=name), unequal_fraction=1.0, derivative=derivative)
        for name, derivative in (("math", None), ("sdpa", FiniteDifferenceJVP(1e-4)))
    )
    difference.load_state_dict(exact.state_dict())
    latents, labels = torch.randn(8, 2, 4, 4), torch.randint(NULL, (8,))
    draws = exact.draw(latents)

    losses = [o.terms("generator", latents, labels, draws)["velocity"] for o in (exact, difference)]

    torch.testing.assert_close(*losses, rtol=1e-5, atol=1e-6)


def test_fused_attention_with_jvp_raises():
    with pytest.raises(ValueError, match="SDPAttention has no jvp"):
        MeanFlow(transformer(attention="sdpa"))


# --- What ports get wrong ---


@given(seeds, st.integers(1, 40), st.floats(0, 0.7), st.floats(0, 0.3))
def test_equal_times_and_dropped_labels_come_first(seed, size, unequal, dropped):
    objective = MeanFlow(Recorder(dropped), unequal_fraction=unequal)

    draws = objective.draw(torch.empty(size, 3), stream(seed))

    equal = draws.timesteps_src == draws.timesteps_tgt
    assert equal.tolist() == sorted(equal.tolist(), reverse=True)
    assert (~equal).sum() == round(unequal * size)
    assert draws.label_drops.tolist() == sorted(draws.label_drops.tolist(), reverse=True)
    assert abs(draws.label_drops.sum().item() - dropped * size) <= 1
    assert not (draws.label_drops & ~equal).any()
    assert (draws.timesteps_src >= draws.timesteps_tgt).all()


def test_times_are_ordered_logit_normal_pairs():
    objective = MeanFlow(Recorder(), unequal_fraction=1.0, time_mean=-0.4, time_std=1.0)

    draws = objective.draw(torch.empty(40_000, 3))

    both = torch.cat([draws.timesteps_src, draws.timesteps_tgt]).logit()
    assert both.mean().item() == pytest.approx(-0.4, abs=0.02)
    assert both.std().item() == pytest.approx(1.0, abs=0.02)
    # The larger of two standard normal numbers has the mean 1 / sqrt(pi).
    larger = draws.timesteps_src.logit().mean().item()
    assert larger == pytest.approx(-0.4 + torch.pi**-0.5, abs=0.02)


def test_guidance_velocity_mode_and_times():
    generator = Recorder(0.25)
    objective = MeanFlow(generator, omega=0.2, kappa=0.92, unequal_fraction=0.75)
    latents, labels = torch.randn(4, 3), torch.arange(4)
    draws = objective.draw(latents)

    objective.terms("generator", latents, labels, draws)

    own, null, _, trained = generator.seen
    assert [seen[3] for seen in generator.seen] == [False, False, True, True]
    for seen in (own, null):
        assert torch.equal(seen[1], draws.timesteps_src)
        assert torch.equal(seen[2], draws.timesteps_src)
    assert null[0].tolist() == [5] * 4
    assert own[0].tolist() == [0, 1, 2, 3]
    assert trained[0].tolist() == [5, 1, 2, 3]
    assert generator.training
    assert generator.dropout.training


def test_jvp_shares_dropout():
    generator = Recorder()
    objective = MeanFlow(generator, unequal_fraction=1.0, weight_power=0.0)
    latents, labels = torch.randn(50, 3), torch.arange(50) % 5
    draws = objective.draw(latents)
    s, t = draws.timesteps_src[:, None], draws.timesteps_tgt[:, None]

    torch.manual_seed(3)
    made = objective.terms("generator", latents, labels, draws)["velocity"]

    torch.manual_seed(3)
    mask = nn.functional.dropout(torch.ones(50, 3), 0.5)
    point, velocity = (1 - s) * latents + s * draws.noises_src, draws.noises_src - latents
    shifted = point + labels[:, None]
    mean = mask * 0.7 * shifted.sin() * (1 + s * t)
    slope = mask * 0.7 * (shifted.cos() * velocity * (1 + s * t) + shifted.sin() * t)
    expected = (mean - velocity + (s - t) * slope).square().sum(1).mean()
    torch.testing.assert_close(made, expected.detach())


@pytest.mark.parametrize(("dropout", "training", "rows"), [(0.0, 1, 2), (0.5, 0, 2), (0.5, 1, 8)])
def test_derivative_of_rows_with_two_times(dropout, training, rows):
    generator = Recorder(dropout=dropout).train(bool(training))
    objective = MeanFlow(generator, unequal_fraction=0.25)
    latents, labels = torch.randn(8, 3), torch.arange(8) % 5

    objective.terms("generator", latents, labels, objective.draw(latents))

    assert [len(seen[1]) for seen in generator.seen] == [rows, 8]


def test_dropout_of_a_mixed_batch_is_the_same_in_the_derivative():
    objective = MeanFlow(Recorder(), unequal_fraction=0.5, weight_power=0.0)
    latents, labels = torch.randn(50, 3), torch.zeros(50).long()
    draws = objective.draw(latents)
    s, t = draws.timesteps_src[:, None], draws.timesteps_tgt[:, None]

    torch.manual_seed(3)
    made = objective.terms("generator", latents, labels, draws)["velocity"]

    torch.manual_seed(3)
    mask = nn.functional.dropout(torch.ones(50, 3), 0.5)
    point, velocity = (1 - s) * latents + s * draws.noises_src, draws.noises_src - latents
    mean = mask * 0.7 * point.sin() * (1 + s * t)
    slope = mask * 0.7 * (point.cos() * velocity * (1 + s * t) + point.sin() * t)
    expected = (mean - velocity + (s - t) * slope).square().sum(1).mean()
    torch.testing.assert_close(made, expected.detach())


def test_target_has_no_gradient():
    objective = MeanFlow(Recorder().eval(), unequal_fraction=1.0, weight_power=0.0)
    latents, labels = torch.randn(6, 3), torch.zeros(6).long()
    draws = objective.draw(latents)

    objective.terms("generator", latents, labels, draws)["velocity"].backward()

    s, t = draws.timesteps_src[:, None], draws.timesteps_tgt[:, None]
    point = (1 - s) * latents + s * draws.noises_src
    velocity = draws.noises_src - latents
    wave = point.sin() * (1 + s * t)  # The network is 0.7 times this.
    slope = 0.7 * (point.cos() * velocity * (1 + s * t) + point.sin() * t)
    error = 0.7 * wave - (velocity - (s - t) * slope)
    expected = (2 * error * wave).sum(1).mean()
    torch.testing.assert_close(objective.generator.weight.grad, expected)


# --- The exact flow ---


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 0.5), (1.0, 1.0), (-1.0, 2.0)])
def test_exact_mean_velocity_is_stationary(gaussian_flow, mean, deviation):
    generator = gaussian_flow(mean, deviation)
    objective = MeanFlow(generator, unequal_fraction=0.75, weight_power=0.0)
    latents, labels = mean + deviation * torch.randn(20_000, 1), torch.zeros(20_000).long()
    draws = objective.draw(latents)

    def gradients(slope, offset):
        generator.slope.data.fill_(slope)
        generator.offset.data.fill_(offset)
        loss = objective.terms("generator", latents, labels, draws)["velocity"]
        return torch.stack(torch.autograd.grad(loss, [generator.slope, generator.offset]))

    exact = gradients(0.0, 0.0).abs()
    assert exact[0] < 0.1 * gradients(0.5, 0.0)[0].abs()
    assert exact[1] < 0.1 * gradients(0.0, 0.5)[1].abs()


@pytest.mark.parametrize("nfe", [1, 2, 7])
def test_exact_mean_velocity_samples_exactly(gaussian_flow, nfe):
    objective = MeanFlow(gaussian_flow(-2.0, 0.5))
    noises = torch.linspace(-2, 2, 5)[:, None]

    samples = sample(objective, [0] * 5, noises=noises, nfe=nfe)

    torch.testing.assert_close(samples, -2 + 0.5 * noises)


@pytest.mark.parametrize("nfe", [1, 4])
def test_small_network_learns_exact_map(gaussian_error, affine_network, nfe):
    objective = MeanFlow(affine_network(), unequal_fraction=0.5)

    assert gaussian_error(objective, steps=300, lr=0.1, nfe=nfe) < 0.1


# --- Settings ---


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(nfe=0), "nfe must be a positive integer"),
        (dict(unequal_fraction=1.5), r"unequal_fraction must be in \[0, 1\].*1.5"),
        (dict(omega=0.2, kappa=0.92), "omega 0.2 and kappa 0.92 need a null class"),
        (dict(guidance_interval=(0.5, 0.2)), r"ascending times in \[0, 1\], got \[0.5, 0.2\]"),
        (dict(weight_offset=0.0), "weight_offset must be positive"),
        (dict(weight_power=-1.0), "weight_power not negative.*-1.0"),
        (dict(time_std=0.0), "time_std.*must be positive.*0.0"),
    ],
)
def test_invalid_settings_raise(arguments, message):
    with pytest.raises(ValueError, match=message):
        MeanFlow(Recorder(), **arguments)


def test_zero_guidance_needs_no_null_class():
    generator = Recorder()
    objective = MeanFlow(generator, omega=0.5, kappa=0.5)
    latents, labels = torch.randn(4, 3), torch.arange(4)

    objective.terms("generator", latents, labels, objective.draw(latents))

    assert len(generator.seen) == 3  # One guiding velocity, the derivative, the mean velocity.


def test_generator_determines_draws():
    objective = MeanFlow(Recorder(0.1))

    draws, again, other = (
        dataclasses.asdict(objective.draw(torch.empty(9, 3), stream(seed))) for seed in (1, 1, 2)
    )

    for name, value in draws.items():
        assert torch.equal(value, again[name])
    assert not torch.equal(draws["timesteps_src"], other["timesteps_src"])
    assert not torch.equal(draws["noises_src"], other["noises_src"])
