"""Tests for afmlib.objectives.continuous_consistency, in the units of the paper."""

import math

import pytest
import torch
from torch import nn

from afmlib.derivatives import FiniteDifferenceJVP
from afmlib.interfaces import Generator
from afmlib.networks.dit import DiTGenerator
from afmlib.objectives.continuous_consistency import ContinuousConsistency
from afmlib.sampling import sample

pytestmark = pytest.mark.usefixtures("float64")


def transformer(attention="auto"):
    generator = DiTGenerator(
        input_size=4,
        in_channels=2,
        hidden_size=8,
        depth=2,
        num_heads=2,
        num_classes=3,
        attention=attention,
        use_timestep_src=True,
        time_scale=1.0,
    )
    for parameter in generator.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.3)
    return generator


class Noisy(Generator):
    """One weight and dropout."""

    embeds_timestep_src = embeds_timestep_tgt = True

    latent_shape = (3,)
    num_classes = 5

    def __init__(self, class_dropout_prob=0.0):
        super().__init__()
        self.class_dropout_prob = class_dropout_prob
        self.weight = nn.Parameter(torch.tensor(0.7))
        self.dropout = nn.Dropout(0.5)

    def forward(self, latents, labels, timesteps_src=None, timesteps_tgt=None):
        return self.dropout(self.weight * latents.cos())


class ExactCircle(Generator):
    """What the network has to return for the flow of N(1, 0.5^2), plus an error."""

    embeds_timestep_src = embeds_timestep_tgt = True

    latent_shape = (1,)
    num_classes = 1

    def __init__(self):
        super().__init__()
        self.slope = nn.Parameter(torch.zeros(()))
        self.offset = nn.Parameter(torch.zeros(()))

    def forward(self, latents, labels, timesteps_src=None, timesteps_tgt=None):
        angle = torch.atan2(timesteps_src, 1 - timesteps_src)[:, None]
        deviation = ((0.5 * angle.cos()) ** 2 + angle.sin() ** 2).sqrt()
        end = 1 + 0.5 / deviation * (latents - angle.cos())
        exact = (angle.cos() * latents - end) / angle.sin()
        return exact + self.slope * latents + self.offset


def objective_of(generator, share=1.0, **arguments):
    """Returns an objective whose warm-up is this far."""
    objective = ContinuousConsistency(generator, warmup_fraction=0.5, **arguments)
    objective.total_images, objective.num_images = 1000, round(500 * share)
    return objective


# --- Against the paper's algorithm, sample by sample ---


def naive_loss(generator, latents, labels, draws, r):
    """Algorithm 1 with x0 = 0.5 x and z = 0.5 z', without the learned weight."""
    losses = []
    for i in range(len(latents)):
        x0, z = 0.5 * latents[i : i + 1], 0.5 * draws.noises_src[i : i + 1]
        t, label = draws.angles[i : i + 1], labels[i : i + 1]
        cos, sin = t.cos(), t.sin()
        x, dx = cos * x0 + sin * z, cos * z - sin * x0

        def network(x, t, label=label):
            time = t.tan() / (1 + t.tan())
            return generator(x, label, time, 0 * time)

        made, change = torch.autograd.functional.jvp(  # Here without the factor; twice backward.
            network, (x / 0.5, t), (dx / 0.5, torch.ones(1))
        )
        made = made.detach()
        g = -(cos**2) * (0.5 * made - dx) - r * cos * sin * (x + 0.5 * change)
        g = g / ((g**2).sum().sqrt() + 0.1)
        losses.append(((network(x / 0.5, t) - made - g) ** 2).sum() / x.numel())
    return sum(losses) / len(losses)


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_term_and_gradients_match_algorithm(share):
    generator = transformer()
    objective = objective_of(generator, share)
    latents, labels = torch.randn(6, 2, 4, 4), torch.randint(3, (6,))
    draws = objective.draw(latents)

    terms = objective.terms("generator", latents, labels, draws)
    terms["tangent"].backward()

    expected = naive_loss(generator, latents, labels, draws, share)
    assert list(terms) == ["tangent"]
    torch.testing.assert_close(terms["tangent"], expected, rtol=1e-9, atol=1e-10)
    trained = [parameter for parameter in generator.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(expected, trained)
    for parameter, gradient in zip(trained, gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-7, atol=1e-10)
        assert gradient.abs().max() > 0


def test_finite_differences_on_fused_attention():
    exact, difference = (
        objective_of(transformer(name), derivative=derivative)
        for name, derivative in (("math", None), ("sdpa", FiniteDifferenceJVP(1e-4)))
    )
    difference.load_state_dict(exact.state_dict())
    latents, labels = torch.randn(6, 2, 4, 4), torch.randint(3, (6,))
    draws = exact.draw(latents)

    losses = [o.terms("generator", latents, labels, draws)["tangent"] for o in (exact, difference)]

    torch.testing.assert_close(*losses, rtol=1e-6, atol=1e-8)


def test_fused_attention_with_jvp_raises():
    with pytest.raises(ValueError, match="SDPAttention has no jvp"):
        ContinuousConsistency(transformer("sdpa"))


# --- What ports get wrong ---


def test_tangent_is_normalized_by_its_norm():
    objective = objective_of(Noisy().eval())
    latents, labels = torch.randn(5, 3), torch.zeros(5).long()

    terms = objective.terms("generator", latents, labels, objective.draw(latents))

    norms = terms.observed["tangent_norm"]
    torch.testing.assert_close(terms["tangent"].detach(), ((norms / (norms + 0.1)) ** 2).mean() / 3)


def test_jvp_shares_dropout():
    objective = objective_of(Noisy())
    latents, labels = torch.randn(4, 3), torch.zeros(4).long()
    draws = objective.draw(latents)

    torch.manual_seed(3)
    terms = objective.terms("generator", latents, labels, draws)

    torch.manual_seed(3)
    mask = nn.functional.dropout(torch.ones(4, 3), 0.5)
    cos, sin = draws.angles.cos()[:, None], draws.angles.sin()[:, None]
    x = cos * latents + sin * draws.noises_src
    v = cos * draws.noises_src - sin * latents
    made, change = mask * 0.7 * x.cos(), -mask * 0.7 * x.sin() * v
    tangents = 0.5 * (-(cos**2) * (made - v) - cos * sin * (x + change))
    torch.testing.assert_close(terms.observed["tangent_norm"], tangents.norm(dim=1))


def test_angles_follow_log_normal_levels():
    draws = ContinuousConsistency(Noisy()).draw(torch.empty(40_000, 3))

    logarithms = (0.5 * draws.angles.tan()).log()
    assert logarithms.mean().item() == pytest.approx(-1.0, abs=0.03)
    assert logarithms.std().item() == pytest.approx(1.4, abs=0.03)


def test_tangent_warm_up():
    objective = ContinuousConsistency(Noisy(), warmup_fraction=0.1)
    with pytest.raises(ValueError, match="needs the length of the run"):
        objective.tangent_warmup()
    objective.total_images = 1000
    shares = []
    for objective.num_images in (0, 25, 100, 500):
        shares.append(objective.tangent_warmup())

    assert shares == [0.0, 0.25, 1.0, 1.0]
    assert ContinuousConsistency(Noisy(), warmup_fraction=0.0).tangent_warmup() == 1


# --- The exact function ---


def test_exact_function_is_stationary():
    generator = ExactCircle()
    # Beside so large an offset tangents are not normalized: their mean is what has to vanish.
    objective = objective_of(generator, tangent_offset=1e6)
    latents, labels = 1 + 0.5 * torch.randn(50_000, 1), torch.zeros(50_000).long()
    draws = objective.draw(latents)

    def gradients(slope, offset):
        generator.slope.data.fill_(slope)
        generator.offset.data.fill_(offset)
        loss = objective.terms("generator", latents, labels, draws)["tangent"]
        return torch.stack(torch.autograd.grad(loss, [generator.slope, generator.offset])).abs()

    exact = gradients(0.0, 0.0)
    assert exact[0] < 0.1 * gradients(0.5, 0.0)[0]
    assert exact[1] < 0.1 * gradients(0.0, 0.5)[1]


def test_exact_function_samples_exactly():
    objective = ContinuousConsistency(ExactCircle())
    noises = torch.randn(5_000, 1)

    one = sample(objective, [0] * 5_000, noises=noises)
    two = sample(objective, [0] * 5_000, noises=noises, nfe=2)

    torch.testing.assert_close(one, 1 + 0.5 * noises, rtol=0.02, atol=0.02)
    assert two.mean().item() == pytest.approx(1, abs=0.03)
    assert two.std().item() == pytest.approx(0.5, abs=0.03)
    between = torch.corrcoef(torch.cat([one, two], dim=1).T)[0, 1].item()
    data, noise = 0.5 * math.cos(1.1), math.sin(1.1)
    assert between == pytest.approx(data / math.hypot(data, noise), abs=0.05)


def test_small_network_learns_exact_map(gaussian_error, affine_network):
    objective = ContinuousConsistency(affine_network(degree=5), log_std=2.0)

    assert gaussian_error(objective, steps=250, lr=0.1) < 0.12


# --- Settings ---


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(nfe=0), "nfe must be a positive integer"),
        (dict(log_std=0.0), "log_std and tangent_offset must be positive, got 0.0"),
        (dict(tangent_offset=0.0), "must be positive, got 1.4 and 0.0"),
        (dict(warmup_fraction=2.0), r"warmup_fraction must be in \[0, 1\], got 2.0"),
        (dict(generator=Noisy(0.1)), "ContinuousConsistency drops no labels"),
    ],
)
def test_invalid_settings_raise(arguments, message):
    with pytest.raises(ValueError, match=message):
        ContinuousConsistency(**{"generator": Noisy(), **arguments})
