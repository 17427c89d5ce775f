"""Tests for afmlib.objectives.shortcut."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from afmlib.interfaces import Generator
from afmlib.networks.dit import DiTGenerator
from afmlib.objectives.shortcut import Shortcut
from afmlib.sampling import sample

pytestmark = pytest.mark.usefixtures("float64")

seeds = st.integers(0, 2**32 - 1)
NULL = 3


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def transformer():
    generator = DiTGenerator(
        input_size=4,
        in_channels=2,
        hidden_size=8,
        depth=1,
        num_heads=2,
        num_classes=NULL,
        class_dropout_prob=0.4,
        use_timestep_src=True,
        use_timestep_tgt=True,
    )
    perturb(generator)
    return generator


def perturb(network):
    for parameter in network.parameters():
        if parameter.requires_grad or not network.training:
            nn.init.normal_(parameter, std=0.3)


class Constant(Generator):
    """Returns one velocity, and remembers what it is given."""

    embeds_timestep_src = embeds_timestep_tgt = True

    latent_shape = (2,)
    num_classes = 5

    def __init__(self, velocity=0.0, class_dropout_prob=0.0):
        super().__init__()
        self.class_dropout_prob = class_dropout_prob
        self.velocity = nn.Parameter(torch.tensor(velocity))
        self.seen = []

    def forward(self, latents, labels, timesteps_src=None, timesteps_tgt=None):
        self.seen.append((latents, labels, timesteps_src, timesteps_tgt))
        return self.velocity * torch.ones_like(latents)


# --- Against the paper's algorithm, sample by sample ---


def naive_terms(objective, latents, labels, draws, num_bootstrap, scale, clip):
    """The two targets, one sample at a time, in steps of the other direction of time."""
    online, averaged = objective.generator, objective.generator_ema
    null = torch.tensor([NULL])

    def velocity(x, label, time, size):
        """Returns the velocity towards the data of a step from ``time`` (1 is data)."""
        s, t = torch.tensor([1 - time]), torch.tensor([1 - time - size])
        v = averaged(x, label, s, t)
        if size == 1 / 128:
            other = averaged(x, null, s, t)
            v = other + scale * (v - other)
        return -v

    sums = {"bootstrap": 0.0, "velocity": 0.0}
    for i in range(len(latents)):
        x, z, label = latents[i : i + 1], draws.noises_src[i : i + 1], labels[i : i + 1]
        time = 1 - draws.timesteps_src[i].item()
        size = (draws.timesteps_src[i] - draws.timesteps_tgt[i]).item()
        point = time * x + (1 - time) * z
        if i < num_bootstrap:
            with torch.no_grad():
                first = velocity(point, label, time, size / 2)
                middle = (point + size / 2 * first).clip(-clip, clip)
                second = velocity(middle, label, time + size / 2, size / 2)
                target = -((first + second) / 2).clip(-clip, clip)
            name = "bootstrap"
        else:
            target, name = z - x, "velocity"
            label = null if draws.label_drops[i] < 0.4 else label
        s, t = torch.tensor([1 - time]), torch.tensor([1 - time - size])
        sums[name] = sums[name] + ((online(point, label, s, t) - target) ** 2).mean()
    return {name: value / len(latents) for name, value in sums.items()}


@pytest.mark.parametrize(("scale", "clip"), [(1.0, 4.0), (1.5, 4.0), (1.5, 0.5)])
def test_terms_and_gradients_match_algorithm(scale, clip):
    objective = Shortcut(transformer(), bootstrap_fraction=0.6, guidance_scale=scale, clip=clip)
    perturb(objective.generator_ema)  # It is no longer the online network.
    latents, labels = torch.randn(20, 2, 4, 4), torch.randint(NULL, (20,))
    draws = objective.draw(latents, stream(4))
    smallest = (draws.timesteps_src - draws.timesteps_tgt)[:12] == 1 / 64
    assert 0 < smallest.sum() < 12

    terms = objective.terms("generator", latents, labels, draws)
    sum(terms.values()).backward()

    expected = naive_terms(objective, latents, labels, draws, 12, scale, clip)
    torch.testing.assert_close(terms, expected, rtol=1e-10, atol=1e-10)
    trained = [p for p in objective.generator.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(sum(expected.values()), trained)
    for parameter, gradient in zip(trained, gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-9, atol=1e-10)
        assert gradient.abs().max() > 0


# --- What ports get wrong ---


@given(seeds, st.integers(1, 50), st.floats(0.05, 0.95), st.sampled_from([2, 8, 128]))
def test_steps_on_grid_and_larger_first(seed, batch, fraction, num_steps):
    objective = Shortcut(Constant(), num_steps=num_steps, bootstrap_fraction=fraction)

    draws = objective.draw(torch.empty(batch, 2), stream(seed))

    sizes = draws.timesteps_src - draws.timesteps_tgt
    count = max(round(fraction * batch), 1)
    assert len(draws.timesteps_mid) == count
    assert (sizes[count:] == 1 / num_steps).all()
    larger = [2.0**-k for k in range(num_steps.bit_length() - 1)]
    assert set(sizes[:count].tolist()) <= set(larger)
    for times in (draws.timesteps_src, draws.timesteps_tgt):
        assert ((times / sizes).frac() == 0).all()
        assert (times >= 0).all()
        assert (times <= 1).all()
    halves = draws.timesteps_src[:count] - draws.timesteps_mid
    assert torch.equal(halves, sizes[:count] / 2)


def test_step_sizes_are_uniform_and_independent():
    objective = Shortcut(Constant(), bootstrap_fraction=0.99)

    draws = objective.draw(torch.empty(14_000, 2))

    sizes = (draws.timesteps_src - draws.timesteps_tgt)[: len(draws.timesteps_mid)]
    for k in range(7):
        assert (sizes == 2.0**-k).sum().item() == pytest.approx(len(sizes) / 7, rel=0.1)
    both = torch.stack([sizes, draws.noises_src[: len(sizes), 0], draws.timesteps_mid])
    correlations = torch.corrcoef(both)
    assert abs(correlations[0, 1]) < 0.05
    assert abs(correlations[1, 2]) < 0.05


def test_targets_use_ema_without_label_dropout():
    generator = Constant(0.25, class_dropout_prob=0.999)
    objective = Shortcut(generator, bootstrap_fraction=0.5)
    objective.generator_ema.velocity.fill_(2.0)
    latents, labels = torch.zeros(8, 2), torch.arange(8) % 5
    draws = objective.draw(latents)

    terms = objective.terms("generator", latents, labels, draws)

    assert terms["bootstrap"].item() == pytest.approx(1.75**2 / 2)
    assert len(objective.generator_ema.seen) == 2
    assert all(seen[1].tolist() == [0, 1, 2, 3] for seen in objective.generator_ema.seen)
    assert generator.seen[0][1].tolist() == [0, 1, 2, 3, 5, 5, 5, 5]


def test_each_image_is_used_once():
    objective = Shortcut(Constant(), bootstrap_fraction=0.25)
    latents = torch.arange(8.0)[:, None].expand(8, 2)
    draws = objective.draw(latents)
    draws.noises_src = latents  # So that every point of the path is the image.

    objective.terms("generator", latents, torch.zeros(8).long(), draws)

    torch.testing.assert_close(objective.generator.seen[0][0], latents.contiguous())


def test_intermediate_samples_are_clipped():
    objective = Shortcut(Constant(), bootstrap_fraction=0.5, num_steps=2)
    objective.generator_ema.velocity.fill_(-100.0)
    latents = torch.zeros(4, 2)
    draws = objective.draw(latents)

    terms = objective.terms("generator", latents, torch.zeros(4).long(), draws)

    assert (objective.generator_ema.seen[1][0] == 4).all()
    assert terms["bootstrap"].item() == pytest.approx(16 / 2)


# --- The exact flow ---


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 0.5), (1.0, 1.0), (-1.0, 0.3)])
def test_exact_mean_velocity_is_consistent(gaussian_flow, mean, deviation):
    objective = Shortcut(gaussian_flow(mean, deviation), bootstrap_fraction=0.5, clip=100.0)
    latents, labels = mean + deviation * torch.randn(64, 1), torch.zeros(64).long()
    draws = objective.draw(latents)

    assert objective.terms("generator", latents, labels, draws)["bootstrap"] < 1e-20
    objective.generator.slope.data.fill_(0.1)
    assert objective.terms("generator", latents, labels, draws)["bootstrap"] > 1e-4


@pytest.mark.parametrize("nfe", [1, 4])
def test_small_network_learns_exact_map(gaussian_error, affine_network, nfe):
    objective = Shortcut(affine_network(), bootstrap_fraction=0.5, num_steps=16)

    assert gaussian_error(objective, steps=300, lr=0.1, nfe=nfe) < 0.1


def test_sampling_takes_equal_steps():
    objective = Shortcut(Constant(0.5))

    samples = sample(objective, [0, 1], noises=torch.ones(2, 2), nfe=4)

    assert torch.equal(samples, torch.full((2, 2), 0.5))
    times = [(seen[2][0].item(), seen[3][0].item()) for seen in objective.generator_ema.seen]
    assert times == [(1.0, 0.75), (0.75, 0.5), (0.5, 0.25), (0.25, 0.0)]


# --- Settings ---


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(nfe=0), "nfe must be a positive integer"),
        (dict(nfe=3), "nfe must be a power of two, at least 1, got 3"),
        (dict(num_steps=100), "num_steps must be a power of two, at least 2, got 100"),
        (dict(num_steps=1), "num_steps must be a power of two, at least 2, got 1"),
        (dict(bootstrap_fraction=0.0), r"bootstrap_fraction must be in \(0, 1\), got 0.0"),
        (dict(clip=0.0), "clip must be positive, got 0.0"),
        (dict(guidance_scale=1.5), "guidance_scale 1.5 needs a null class"),
    ],
)
def test_invalid_settings_raise(arguments, message):
    with pytest.raises(ValueError, match=message):
        Shortcut(Constant(), **arguments)
