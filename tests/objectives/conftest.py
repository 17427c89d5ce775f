"""Tiny networks, and adversarial flow written out from the paper: the oracle of the objectives."""

import pytest
import torch
from torch import nn

from afmlib.interfaces import Generator
from afmlib.networks.dit import DiTDiscriminator, DiTGenerator
from afmlib.networks.mlp import MLPDiscriminator, MLPGenerator
from afmlib.sampling import sample

NUM_CLASSES = 3
TINY = {
    "mlp": dict(in_channels=3, hidden_size=8, depth=2, num_classes=NUM_CLASSES),
    "dit": dict(
        input_size=4,
        patch_size=2,
        in_channels=2,
        hidden_size=8,
        depth=2,
        num_heads=2,
        num_classes=NUM_CLASSES,
    ),
}
NETWORKS = {
    "mlp": (MLPGenerator, MLPDiscriminator),
    "dit": (DiTGenerator, DiTDiscriminator),
}


def log_sigmoid(values):
    return torch.log(1 / (1 + torch.exp(-values)))


def positive_part(values):
    return torch.where(values > 0, values, 0 * values)


# What each player minimizes, of the logits of real and of generated samples.
LOSSES = {
    "RelativisticLoss": (
        lambda real, fake: -log_sigmoid(real - fake),
        lambda real, fake: -log_sigmoid(fake - real),
    ),
    "NonSaturatingLoss": (
        lambda real, fake: -log_sigmoid(real) - torch.log(1 - 1 / (1 + torch.exp(-fake))),
        lambda real, fake: -log_sigmoid(fake),
    ),
    "HingeLoss": (
        lambda real, fake: positive_part(1 - real) + positive_part(1 + fake),
        lambda real, fake: -fake,
    ),
    "LeastSquaresLoss": (
        lambda real, fake: 0.5 * (real - 1) ** 2 + 0.5 * fake**2,
        lambda real, fake: 0.5 * (fake - 1) ** 2,
    ),
    "WassersteinLoss": (
        lambda real, fake: fake - real,
        lambda real, fake: -fake,
    ),
}


class NaiveAdversarialFlow:
    """Adversarial flow (Sec. 3) line by line; of the library it uses the two networks alone."""

    def __init__(
        self,
        generator,
        discriminator,
        loss="RelativisticLoss",
        penalty="FiniteDifferencePenalty",
        prediction="sample",
        normalize=True,
        augment=None,
        ot_scale=0.2,
    ):
        self.generator, self.discriminator = generator, discriminator
        self.discriminator_loss, self.generator_loss = LOSSES[loss]
        self.slope = self.finite_slope if penalty == "FiniteDifferencePenalty" else self.exact_slope
        self.prediction = prediction
        self.normalize = normalize
        self.augment = augment or (lambda latents, parameters: latents)
        self.ot_scale = ot_scale
        self.average = 0.0

    def between(self, latents, noises, times):
        return torch.stack(
            [(1 - t) * x + t * z for x, z, t in zip(latents, noises, times, strict=True)]
        )

    def real(self, latents, draws):
        """Returns real samples at the target time. Noises that are not drawn do not matter."""
        noises = torch.ones_like(latents) if draws.noises_tgt is None else draws.noises_tgt
        return self.between(latents, noises, draws.timesteps_tgt)

    def move(self, latents, labels, draws):
        """Returns where the generator starts from and where it gets to."""
        s, t = draws.timesteps_src, draws.timesteps_tgt
        sources = self.between(latents, draws.noises_src, s)
        outputs = self.generator(sources, labels, s, t)
        if self.prediction == "sample":
            return sources, outputs
        steps = zip(sources, outputs, s, t, strict=True)
        return sources, torch.stack([x - (a - b) * g for x, g, a, b in steps])

    def widths(self, draws):
        return (draws.timesteps_src - draws.timesteps_tgt).abs().clamp(min=0.001)

    def finite_slope(self, critic, points, noises):
        return ((critic(points + 0.01 * noises) - critic(points)) / 0.01) ** 2

    def exact_slope(self, critic, points, noises):
        points = points.clone().requires_grad_()
        (slopes,) = torch.autograd.grad(critic(points).sum(), points, create_graph=True)
        return torch.stack([(slope**2).sum() for slope in slopes])

    def discriminator_terms(self, latents, labels, draws):
        _, made = self.move(latents, labels, draws)
        t = draws.timesteps_tgt
        fake = self.augment(made.detach(), draws.augmentation)
        real = self.augment(self.real(latents, draws), draws.augmentation)
        logits_real, logits_fake = (self.discriminator(x, labels, t) for x in (real, fake))
        count = max(round(0.25 * len(latents)), 1)
        critic = lambda x: self.discriminator(x, labels[:count], t[:count])
        widths = self.widths(draws)[:count]
        r1 = self.slope(critic, real[:count], draws.noises_r1) * widths
        r2 = self.slope(critic, fake[:count], draws.noises_r2) * widths
        return {
            "adversarial": self.discriminator_loss(logits_real, logits_fake).mean(),
            "r1": 0.25 * r1.mean(),
            "r2": 0.25 * r2.mean(),
            "centering": 0.01 * ((logits_real + logits_fake) ** 2).mean(),
        }

    def generator_terms(self, latents, labels, draws):
        """Returns the terms, and the gradients of the parameters by hand."""
        sources, made = self.move(latents, labels, draws)
        t = draws.timesteps_tgt
        fake = self.augment(made, draws.augmentation)
        real = self.augment(self.real(latents, draws), draws.augmentation)
        leaf = fake.detach().requires_grad_()
        logits_real, logits_fake = (self.discriminator(x, labels, t) for x in (real, leaf))
        adversarial = self.generator_loss(logits_real, logits_fake).mean()
        (incoming,) = torch.autograd.grad(adversarial, leaf)
        if self.normalize:
            square = (incoming**2).sum().item() * incoming.numel()
            self.average = 0.9 * self.average + 0.1 * square
            incoming = incoming / (self.average**0.5 + 1e-8)
        distances = torch.stack([((a - b) ** 2).mean() for a, b in zip(made, sources, strict=True)])
        transport = self.ot_scale * (distances / self.widths(draws)).mean()
        trained = [p for p in self.generator.parameters() if p.requires_grad]
        through = torch.autograd.grad(
            fake, trained, incoming, retain_graph=True, materialize_grads=True
        )
        direct = torch.autograd.grad(transport, trained, materialize_grads=True)
        gradients = [a + b for a, b in zip(through, direct, strict=True)]
        return {"adversarial": adversarial, "transport": transport}, gradients


class GaussianFlow(Generator):
    r"""The exact mean velocity between two times for data N(mean, deviation^2), plus an error.

    The flow keeps the distance to the mean of the path in units of its deviation, which is
    :math:`d_s = \sqrt{(1 - s)^2 \sigma^2 + s^2}`; at equal times this is the velocity of the path.
    The error is ``slope * x + offset``.
    """

    embeds_timestep_src = embeds_timestep_tgt = True

    latent_shape = (1,)
    num_classes = 1

    def __init__(self, mean, deviation):
        super().__init__()
        self.mean, self.variance = mean, deviation**2
        self.slope = nn.Parameter(torch.zeros(()))
        self.offset = nn.Parameter(torch.zeros(()))

    def deviation(self, t):
        return ((1 - t) ** 2 * self.variance + t**2).sqrt()

    def exact(self, latents, s, t):
        start, end = self.deviation(s), self.deviation(t)
        growth = (self.variance * (s + t - 2) + s + t) / (start * (start + end))
        return growth * (latents - (1 - s) * self.mean) - self.mean

    def forward(self, latents, labels, timesteps_src=None, timesteps_tgt=None):
        s, t = timesteps_src[:, None], timesteps_tgt[:, None]
        return self.exact(latents, s, t) + self.slope * latents + self.offset


class AffineNetwork(Generator):
    """Affine in the latents, by polynomials of the two times: nearly the flow of a Gaussian."""

    embeds_timestep_src = embeds_timestep_tgt = True

    latent_shape = (1,)
    num_classes = 1

    def __init__(self, degree=3):
        super().__init__()
        self.powers = [(i, j) for i in range(degree + 1) for j in range(degree + 1 - i)]
        self.weight = nn.Parameter(torch.zeros(len(self.powers), 2))

    def forward(self, latents, labels, timesteps_src=None, timesteps_tgt=None):
        s, t = 2 * timesteps_src - 1, 2 * timesteps_tgt - 1
        features = torch.stack([s**i * t**j for i, j in self.powers], dim=1)
        slope, offset = (features @ self.weight).unbind(1)
        return slope[:, None] * latents + offset[:, None]


@pytest.fixture(scope="session")
def affine_network():
    """A small network that is quickly trained."""
    return AffineNetwork


@pytest.fixture(scope="session")
def gaussian_flow():
    """The exact flow of a Gaussian."""
    return GaussianFlow


@pytest.fixture(scope="session")
def gaussian_error():
    """Trains an objective on N(1, 0.5^2) and returns how far its samples are from the exact map."""

    def train(objective, steps, lr, nfe=None, batch=256):
        optimizer = torch.optim.Adam(objective.generator.parameters(), lr, betas=(0.9, 0.99))
        labels = torch.zeros(batch, dtype=torch.long)
        objective.total_images = steps * batch
        for step in range(steps):
            objective.num_images = step * batch
            latents = 1 + 0.5 * torch.randn(batch, 1)
            optimizer.zero_grad()
            draws = objective.draw(latents)
            sum(objective.terms("generator", latents, labels, draws).values()).backward()
            optimizer.param_groups[0]["lr"] = lr * (1 - step / steps)
            optimizer.step()
            for average, online in zip(
                objective.generator_ema.parameters(), objective.generator.parameters(), strict=True
            ):
                average.lerp_(online.detach(), 0.2)
        objective.generator_ema.load_state_dict(objective.generator.state_dict())
        noises = torch.linspace(-2, 2, 21)[:, None]
        made = sample(objective, [0] * 21, noises=noises, nfe=nfe)
        return (made - (1 + 0.5 * noises)).square().mean().sqrt().item()

    return train


@pytest.fixture
def naive():
    """The oracle of adversarial flow."""
    return NaiveAdversarialFlow


@pytest.fixture
def networks():
    """Makes a generator and a discriminator none of whose trained parameters is zero."""

    def make(kind="mlp", nfe=1):
        make_generator, make_discriminator = NETWORKS[kind]
        generator = make_generator(
            **TINY[kind], use_timestep_src=nfe != 1, use_timestep_tgt=nfe == "any"
        )
        discriminator = make_discriminator(**TINY[kind], use_timestep=nfe != 1)
        for network in (generator, discriminator):
            for parameter in network.parameters():
                if parameter.requires_grad:
                    nn.init.normal_(parameter, std=0.3)
        return generator, discriminator

    return make


@pytest.fixture
def batch():
    """Makes latents and labels for a generator."""

    def make(generator, size=6):
        return torch.randn(size, *generator.latent_shape), torch.randint(NUM_CLASSES, (size,))

    return make
