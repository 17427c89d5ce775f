r"""Continuous adversarial flow (CAFM): post-training of a flow-matching model by a discriminator.

The discriminator is a potential :math:`D(x, t)`. Its logit is the JVP with the direction
:math:`(v, 1)` of a velocity. Along the path :math:`x_t = (1 - t) x + t z`, the real velocity is
:math:`z - x` and the generated one :math:`g(x_t, t)`:

.. math::
    \ell(v) &= \nabla_x D(x_t, t) \cdot v + \partial_t D(x_t, t) \\
    L_D &= (\ell(z - x) - 1)^2 + (\ell(g) + 1)^2 + \lambda_\text{cp} \, D(x_t, t)^2 \\
    L_G &= (\ell(g) - 1)^2 + \lambda_\text{v} \, \tfrac1n \| g \|_2^2

The discriminator gets 16 updates per generator update.

References:
    | Continuous Adversarial Flow Models (2026)
    | https://arxiv.org/abs/2604.11521
"""

__all__ = ["ContinuousAdversarialFlow", "ContinuousAdversarialFlowDraws"]

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from afmlib.interfaces import Discriminator, Generator, Objective, Terms
from afmlib.nn.attention import require_capabilities
from afmlib.nn.frozen import frozen
from afmlib.ops.drawing import RandomSource, normal_like, uniform_like
from afmlib.ops.flow import interpolate
from afmlib.parameterizations import HeunVelocity, InstantaneousVelocity
from afmlib.typing import Labels, Latents, Logits, Timesteps


@dataclass
class ContinuousAdversarialFlowDraws:
    """The random numbers of one update."""

    noises_src: Latents
    """The noise end of the path."""

    timesteps_src: Timesteps
    """The times at which velocities are compared."""

    label_drops: Timesteps
    """Uniform numbers. Both networks get no label if its number is below
    ``class_dropout_prob``."""


class ContinuousAdversarialFlow(Objective):
    r"""Adversarial training of the velocity of a flow, with steps of Euler's or Heun's method.

    Args:
        generator: The network, which embeds the source time. Start it from flow matching.
        discriminator: The potential, which embeds the time with a small ``time_scale``. Its
            attention must support a derivative of its JVP. If the generator drops labels, it needs
            a null class too.
        nfe: The default number of network evaluations of a sample.
        heun: Whether samples take steps of Heun's method, of two evaluations each.
        cp_scale: The weight :math:`\lambda_\text{cp}` of the squared potential.
        velocity_scale: The weight :math:`\lambda_\text{v}` of the squared velocity.
        warmup_images: Images of the generator during which only the discriminator learns.

    Raises:
        ValueError: If an argument is out of its domain, or the networks do not fit.
    """

    players: ClassVar[Mapping[str, int]] = {"discriminator": 16, "generator": 1}
    requires: ClassVar[frozenset[str]] = frozenset({"jvp", "double_backward"})

    def __init__(
        self,
        generator: Generator,
        discriminator: Discriminator,
        nfe: int = 50,
        heun: bool = False,
        cp_scale: float = 0.001,
        velocity_scale: float = 0.0,
        warmup_images: int = 0,
    ) -> None:
        solver = HeunVelocity() if heun else InstantaneousVelocity()
        super().__init__(generator, solver, nfe, any_nfe=True)
        if nfe % solver.evaluations_per_step:
            raise ValueError(f"Heun's method evaluates the network twice a step: nfe {nfe} is odd.")
        for name, number in dict(
            cp_scale=cp_scale, velocity_scale=velocity_scale, warmup_images=warmup_images
        ).items():
            if not number >= 0:
                raise ValueError(f"{name} must not be negative, got {number}.")
        self.require_times(generator, source=True)
        if not discriminator.embeds_timestep:
            raise ValueError(
                f"The {type(discriminator).__name__} embeds no time: build it with "
                "use_timestep=True. A discriminator of your own declares it as embeds_timestep = "
                "True."
            )
        require_capabilities(discriminator, self.requires)
        self.discriminator = discriminator
        self.cp_scale = cp_scale
        self.velocity_scale = velocity_scale
        self.warmup_images = warmup_images
        self._check_null_class()

    def _check_null_class(self) -> None:
        shape, null = self.generator.latent_shape, self.generator.num_classes
        if shape is None or not self.generator.class_dropout_prob > 0:
            return
        weight = next(self.discriminator.parameters())
        latents, times = weight.new_zeros(1, *shape), weight.new_zeros(1)
        try:
            with torch.no_grad():
                self.discriminator(latents, torch.full_like(times, null or 0).long(), times)
        except (IndexError, ValueError):
            raise ValueError(
                "The generator drops labels, and the discriminator has no null class: give both "
                f"class_dropout_prob={self.generator.class_dropout_prob}."
            ) from None

    def draw(
        self, latents: Latents, generator: RandomSource | None = None
    ) -> ContinuousAdversarialFlowDraws:
        return ContinuousAdversarialFlowDraws(
            noises_src=normal_like(latents, len(latents), generator),
            timesteps_src=uniform_like(latents, generator),
            label_drops=uniform_like(latents, generator),
        )

    def terms(
        self, player: str, latents: Latents, labels: Labels, draws: ContinuousAdversarialFlowDraws
    ) -> Terms:
        """Returns ``real``, ``fake`` and ``centering``; or ``adversarial`` and ``transport``.

        Raises:
            ValueError: If ``player`` is not "discriminator" or "generator".
        """
        if player not in self.players:
            raise ValueError(f"The players are {', '.join(self.players)}; got {player!r}.")
        t, noises = draws.timesteps_src, draws.noises_src
        labels = self.drop_labels(labels, draws.label_drops < self.generator.class_dropout_prob)
        points = interpolate(latents, noises, t)
        if player == "discriminator":
            with torch.no_grad():
                made = self.generator(points, labels, t, t)
            tangents = torch.stack([noises - latents, made.to(latents)])
            potentials, (real, fake) = self._logits(points, labels, t, tangents)
            return Terms(
                real=(real - 1).square().mean(),
                fake=(fake + 1).square().mean(),
                centering=self.cp_scale * potentials.square().mean(),
                observed={"logits_real": real.detach(), "logits_fake": fake.detach()},
            )
        made = self.generator(points, labels, t, t)
        with frozen(self.discriminator):
            _, (fake,) = self._logits(points, labels, t, made.to(points)[None])
        learns = float(self.num_images >= self.warmup_images)
        return Terms(
            adversarial=learns * (fake - 1).square().mean(),
            transport=learns * self.velocity_scale * made.square().flatten(1).mean(1).mean(),
            observed={"logits_fake": fake.detach()},
        )

    def _logits(
        self,
        points: Latents,
        labels: Labels,
        timesteps: Timesteps,
        tangents: Float[Tensor, " directions batch *latent"],
    ) -> tuple[Logits, Float[Tensor, " directions batch"]]:
        """Returns the potentials, and their JVPs with velocities while time advances."""

        def potential(latents: Tensor, times: Tensor) -> Tensor:
            return self.discriminator(latents, labels, times)

        def derivative(tangent: Tensor) -> tuple[Tensor, Tensor]:
            directions = (tangent, torch.ones_like(timesteps))
            value, slope, *_ = torch.func.jvp(potential, (points, timesteps), directions)
            return value, slope

        # The points are the same for all directions, so that D's own pass is shared.
        return torch.vmap(derivative, out_dims=(None, 0))(tangents)  # type: ignore[arg-type]
