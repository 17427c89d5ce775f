r"""Adversarial flow: a generator trained against a discriminator, with a transport loss.

The adversarial loss makes the samples :math:`G(z)` follow the data, which infinitely many maps do.
The transport loss picks the one that moves the noise least, so that there is one deterministic map
to learn and training is stable:

.. math::
    L_D &= L_D^\text{adv} + \lambda_\text{gp} (R_1 + R_2) + \lambda_\text{cp} L^\text{cp} \\
    L_G &= L_G^\text{adv} + \lambda_\text{ot} L^\text{ot} + L^\text{cg}

Between times, a step carries :math:`x_s` to :math:`x_t`. Both come from the same sample with
independent noises, and the discriminator sees :math:`(x_t, t)` alone. With the width
:math:`w(s, t)` of the step, penalties are multiplied by :math:`w` and the transport loss is
divided by it.

In the generator's step, the order is augmentation, gradient normalization, discriminator; the
transport and guidance losses see the samples before all of these.

References:
    | Adversarial Flow Models (Lin et al., 2025), Sec. 3
    | https://arxiv.org/abs/2511.22475
"""

__all__ = ["AdversarialFlow", "AdversarialFlowDraws"]

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from afmlib.interfaces import (
    AdversarialLoss,
    Augmentation,
    DepthWrapper,
    Discriminator,
    Generator,
    GradientPenalty,
    Guidance,
    Minibatch,
    Objective,
    SampleModel,
    Schedule,
)
from afmlib.losses.gradient_penalty import FiniteDifferencePenalty
from afmlib.losses.logit_centering import logit_centering
from afmlib.losses.relativistic import RelativisticLoss
from afmlib.losses.transport import transport_loss
from afmlib.nn.attention import require_capabilities
from afmlib.objectives.adversarial_flow_draws import AdversarialFlowDraws
from afmlib.objectives.averaged import (
    averaged_copy,
    averaged_model,
    check_embedders,
    check_keeps_labels,
    check_player,
    frozen,
)
from afmlib.ops.drawing import normal_like, uniform_like
from afmlib.ops.flow import interpolate, step_width
from afmlib.ops.gradient_access import observe_gradient, value_with_gradient
from afmlib.ops.gradient_normalization import GradientNormalization
from afmlib.ops.time_grid import draw_any_steps, draw_fixed_steps
from afmlib.parameterizations import parameterization_of
from afmlib.schedules import scheduled_value
from afmlib.typing import Labels, Latents, Logits, Scalar, Timesteps

Penalized: TypeAlias = Float[Tensor, " penalized"]
"""One value per sample of the penalized part of a batch."""


class AdversarialFlow(Objective):
    r"""Adversarial flow in one step, a fixed number of steps, or any step.

    With ``ot_scale=0`` it is a GAN.

    Args:
        generator: The generator :math:`G`. For several fixed steps it has to embed the source
            time, for any step both times.
        discriminator: The discriminator :math:`D`. For several steps it has to embed the time.
        loss: The adversarial loss; relativistic unless given.
        penalty: The gradient penalty; by finite differences unless given.
        nfe: The number of steps, or "any".
        prediction: What the generator returns, "sample" or "velocity".
        ot_scale: The weight :math:`\lambda_\text{ot}` of the transport loss. Too low and the map
            drifts; too high and the samples stay near the noise.
        gp_scale: The weight :math:`\lambda_\text{gp}` of each penalty.
        gp_fraction: The share of the batch that is penalized, in (0, 1]; at least one sample.
        cp_scale: The weight :math:`\lambda_\text{cp}` of the logit centering.
        gradient_normalization: Whether the adversarial gradient at the samples is normalized, which
            gives ``ot_scale`` the same meaning for every network; or the operator that does it, or
            its arguments.
        augmentation: What is done to real and generated samples before the discriminator.
        guidance: What pulls the samples towards their class.

    Raises:
        ValueError: If an argument is out of its domain, or networks or guidance do not fit ``nfe``.
    """

    players: ClassVar[Mapping[str, int]] = {"discriminator": 1, "generator": 1}

    uses_guidance: bool = True
    """Whether the guidance is on; phases of a run switch it. Its draws are made all the same."""

    uses_augmentation: bool = True
    """Whether the augmentation is on; phases of a run switch it."""

    def __init__(
        self,
        generator: Generator,
        discriminator: Discriminator,
        loss: AdversarialLoss | None = None,
        penalty: GradientPenalty | None = None,
        nfe: int | Literal["any"] = 1,
        prediction: Literal["sample", "velocity"] = "sample",
        ot_scale: float | Schedule = 0.2,
        gp_scale: float | Schedule = 0.25,
        gp_fraction: float = 0.25,
        cp_scale: float | Schedule = 0.01,
        gradient_normalization: bool | Mapping[str, Any] | GradientNormalization = True,
        augmentation: Augmentation | None = None,
        guidance: Guidance | None = None,
    ) -> None:
        super().__init__()
        _check_scales(ot_scale=ot_scale, gp_scale=gp_scale, cp_scale=cp_scale)
        if not 0 < gp_fraction <= 1:
            raise ValueError(f"gp_fraction must be in (0, 1], got {gp_fraction}.")
        _check_steps(nfe, generator, discriminator, guidance)
        self.generator = generator
        self.generator_ema = averaged_copy(generator)
        self.discriminator = discriminator
        self.loss = RelativisticLoss() if loss is None else loss
        self.penalty = FiniteDifferencePenalty() if penalty is None else penalty
        require_capabilities(discriminator, self.penalty.requires)
        self.nfe: int | Literal["any"] = nfe
        self.parameterization = parameterization_of(prediction)
        self.ot_scale = ot_scale
        self.gp_scale = gp_scale
        self.gp_fraction = gp_fraction
        self.cp_scale = cp_scale
        self.gradient_normalization = _gradient_normalization(gradient_normalization)
        self.augmentation = augmentation
        self.guidance = guidance

    # --- Draws ---

    def draw(
        self, latents: Latents, generator: torch.Generator | None = None
    ) -> AdversarialFlowDraws:
        """Draws noises, times and the rest for one update on a batch like ``latents``."""
        normal = functools.partial(normal_like, latents, generator=generator)
        noises_src, noises_tgt = normal(len(latents)), normal(len(latents))
        timesteps_src, timesteps_tgt = self._draw_timesteps(latents, generator)
        num_penalized = self.num_penalized(len(latents))
        draws = AdversarialFlowDraws(
            noises_src,
            noises_tgt,
            timesteps_src,
            timesteps_tgt,
            noises_r1=normal(num_penalized),
            noises_r2=normal(num_penalized),
        )
        if self.guidance is not None:
            low, high = self.guidance.timesteps
            draws.noises_cg = normal(len(latents))
            draws.timesteps_cg = low + (high - low) * uniform_like(latents, generator)
        if self.augmentation is not None:
            draws.augmentation = self.augmentation.draw(latents, generator)
        return draws

    def _draw_timesteps(
        self, latents: Latents, generator: torch.Generator | None
    ) -> tuple[Timesteps, Timesteps]:
        if self.nfe == "any":
            return draw_any_steps(
                uniform_like(latents, generator), uniform_like(latents, generator)
            )
        return draw_fixed_steps(uniform_like(latents, generator), self.nfe)

    def num_penalized(self, batch: int) -> int:
        """Returns how many samples of a batch, the first ones, are penalized."""
        return max(round(self.gp_fraction * batch), 1)

    # --- Terms ---

    def terms(
        self, player: str, latents: Latents, labels: Labels, draws: AdversarialFlowDraws
    ) -> dict[str, Scalar]:
        """Returns the weighted terms whose sum is the loss of a player.

        Raises:
            ValueError: If ``player`` is not "discriminator" or "generator".
        """
        check_player(player, self.players)
        if player == "discriminator":
            return self.discriminator_terms(latents, labels, draws)
        return self.generator_terms(latents, labels, draws)

    def discriminator_terms(
        self, latents: Latents, labels: Labels, draws: AdversarialFlowDraws
    ) -> dict[str, Scalar]:
        """Returns the terms ``adversarial``, ``r1``, ``r2`` and ``centering``."""
        with torch.no_grad():
            fake = self._augment(self._generate(latents, labels, draws)[0], draws)
        real = self._augment(self._real(latents, draws), draws)
        both = torch.cat([real, fake])
        logits = self.discriminator(both, labels.repeat(2), draws.timesteps_tgt.repeat(2))
        logits_real, logits_fake = logits.chunk(2)
        self.observations = {
            **_observed_logits(logits_real, logits_fake),
            "sign_rate": logits_real.detach().sign().mean(),
        }
        r1, r2 = self._penalties(real, fake, labels, logits_real, logits_fake, draws)
        gp_scale = scheduled_value(self.gp_scale, self.num_images, self.total_images)
        cp_scale = scheduled_value(self.cp_scale, self.num_images, self.total_images)
        return {
            "adversarial": self.loss.discriminator_loss(logits_real, logits_fake).mean(),
            "r1": gp_scale * r1.mean(),
            "r2": gp_scale * r2.mean(),
            "centering": cp_scale * logit_centering(logits_real, logits_fake).mean(),
        }

    def generator_terms(
        self, latents: Latents, labels: Labels, draws: AdversarialFlowDraws
    ) -> dict[str, Scalar]:
        """Returns the terms ``adversarial``, ``transport`` and, if there is any, ``guidance``.

        Their backward pass updates the average of the gradient normalization.
        """
        seen: dict[str, Tensor] = {}
        samples, sources = self._generate(latents, labels, draws)
        fake = self._augment(observe_gradient(samples, seen, "gradient_adversarial"), draws)
        if self.gradient_normalization is not None:
            fake = self.gradient_normalization(fake)
        adversarial = self._adversarial_term(fake, latents, labels, draws, seen)
        self.observations = seen
        regularizers = self._regularizers(samples, sources, labels, draws, seen)
        return {"adversarial": adversarial, **regularizers}

    def _adversarial_term(
        self,
        fake: Latents,
        latents: Latents,
        labels: Labels,
        draws: AdversarialFlowDraws,
        seen: dict[str, Tensor],
    ) -> Scalar:
        with frozen(self.discriminator):
            with torch.no_grad():
                real = self._augment(self._real(latents, draws), draws)
                logits_real = self.discriminator(real, labels, draws.timesteps_tgt)
            logits_fake = self.discriminator(fake, labels, draws.timesteps_tgt)
        seen |= _observed_logits(logits_real, logits_fake)
        return self.loss.generator_loss(logits_real, logits_fake).mean()

    def _regularizers(
        self,
        samples: Latents,
        sources: Latents,
        labels: Labels,
        draws: AdversarialFlowDraws,
        seen: dict[str, Tensor],
    ) -> dict[str, Scalar]:
        """Returns the terms that see the samples as they are."""
        widths = step_width(draws.timesteps_src, draws.timesteps_tgt)
        ot_scale = scheduled_value(self.ot_scale, self.num_images, self.total_images)
        moved = observe_gradient(samples, seen, "gradient_transport")
        terms = {"transport": ot_scale * transport_loss(moved, sources, widths).mean()}
        if self.guidance is not None and self.uses_guidance:
            assert draws.noises_cg is not None
            assert draws.timesteps_cg is not None
            pulled = observe_gradient(samples, seen, "gradient_guidance")
            guided = self.guidance(
                pulled, labels, draws.timesteps_tgt, draws.noises_cg, draws.timesteps_cg
            )
            terms["guidance"] = guided.mean()
        return terms

    def terms_of_parts(
        self, player: str, parts: Sequence[Minibatch]
    ) -> Sequence[Callable[[], dict[str, Scalar]]]:
        """Returns what computes the terms of each part of a batch.

        The adversarial gradient is normalized by that of the whole batch, which has to be known
        before the first part is back-propagated through the generator. So the discriminator's
        gradient at the samples of every part comes first, at the price of another forward pass of
        the generator.
        """
        normalization = self.gradient_normalization
        if player != "generator" or normalization is None or len(parts) == 1:
            return super().terms_of_parts(player, parts)
        measured = [self._adversarial_gradient(part) for part in parts]
        gradients = normalization.rescale([gradient for _, gradient, _ in measured])
        return [
            functools.partial(self._terms_by_gradient, part, loss, gradient, seen)
            for part, gradient, (loss, _, seen) in zip(parts, gradients, measured, strict=True)
        ]

    def _adversarial_gradient(
        self, part: Minibatch
    ) -> tuple[Scalar, Latents, Mapping[str, Tensor]]:
        """Returns the adversarial loss, its gradient at what D sees, and what was observed."""
        torch.manual_seed(part.network_seed)
        seen: dict[str, Tensor] = {}
        with torch.no_grad():
            samples, _ = self._generate(part.latents, part.labels, part.draws)
            fake = self._augment(samples, part.draws)
        fake.requires_grad_()
        loss = self._adversarial_term(fake, part.latents, part.labels, part.draws, seen)
        (gradient,) = torch.autograd.grad(loss, fake)
        return loss.detach(), gradient, seen

    def _terms_by_gradient(
        self, part: Minibatch, loss: Scalar, gradient: Latents, seen: Mapping[str, Tensor]
    ) -> dict[str, Scalar]:
        """Returns the generator's terms, with the gradient of the adversarial one given."""
        torch.manual_seed(part.network_seed)  # The same samples again.
        self.observations = seen = dict(seen)
        samples, sources = self._generate(part.latents, part.labels, part.draws)
        fake = self._augment(observe_gradient(samples, seen, "gradient_adversarial"), part.draws)
        regularizers = self._regularizers(samples, sources, part.labels, part.draws, seen)
        return {"adversarial": value_with_gradient(fake, loss, gradient), **regularizers}

    def _generate(
        self, latents: Latents, labels: Labels, draws: AdversarialFlowDraws
    ) -> tuple[Latents, Latents]:
        """Returns the generator's samples at the target time, and what it was given."""
        sources = interpolate(latents, draws.noises_src, draws.timesteps_src)
        samples = self.parameterization(
            self.generator, sources, labels, draws.timesteps_src, draws.timesteps_tgt
        )
        return samples, sources

    def _real(self, latents: Latents, draws: AdversarialFlowDraws) -> Latents:
        return interpolate(latents, draws.noises_tgt, draws.timesteps_tgt)

    def _augment(self, latents: Latents, draws: AdversarialFlowDraws) -> Latents:
        if self.augmentation is None or not self.uses_augmentation:
            return latents
        return self.augmentation(latents, draws.augmentation, self.num_images)

    def _penalties(
        self,
        real: Latents,
        fake: Latents,
        labels: Labels,
        logits_real: Logits,
        logits_fake: Logits,
        draws: AdversarialFlowDraws,
    ) -> tuple[Penalized, Penalized]:
        """Returns R1 and R2 of the penalized part, weighted by the width of each step."""
        size = len(draws.noises_r1)
        points = torch.cat([real[:size], fake[:size]])
        labels = labels[:size].repeat(2)
        timesteps = draws.timesteps_tgt[:size].repeat(2)
        noises = torch.cat([draws.noises_r1, draws.noises_r2])
        critic = functools.partial(self._score, labels=labels, timesteps=timesteps)
        device = points.device.type
        # In half precision the difference of two logits is mostly rounding.
        if device != "meta" and torch.is_autocast_enabled(device):
            with torch.autocast(device, enabled=False):
                points = points.float()
                slopes = self.penalty(critic, points, critic(points), noises)
        else:
            clean = torch.cat([logits_real[:size], logits_fake[:size]])
            slopes = self.penalty(critic, points, clean, noises)
        widths = step_width(draws.timesteps_src, draws.timesteps_tgt)
        r1, r2 = slopes.chunk(2)
        return r1 * widths[:size].to(r1.dtype), r2 * widths[:size].to(r2.dtype)

    def _score(self, latents: Latents, labels: Labels, timesteps: Timesteps) -> Logits:
        return self.discriminator(latents, labels, timesteps)

    # --- Sampling ---

    @property
    def sample_model(self) -> SampleModel:
        """The averaged generator, ready for :func:`afmlib.sample`."""
        any_nfe = self.nfe == "any"
        nfe = 1 if self.nfe == "any" else self.nfe
        return averaged_model(self, self.parameterization, nfe, any_nfe)


def _observed_logits(logits_real: Logits, logits_fake: Logits) -> dict[str, Tensor]:
    return {"logits_real": logits_real.detach(), "logits_fake": logits_fake.detach()}


def _check_scales(**scales: float | Schedule) -> None:
    for name, scale in scales.items():
        ends = (scale(0, 1), scale(2**62, 1)) if isinstance(scale, Schedule) else (scale,)
        for value in ends:
            if not value >= 0:
                raise ValueError(f"{name} must not be negative, got {value}.")


def _check_steps(
    nfe: int | Literal["any"],
    generator: Generator,
    discriminator: Discriminator,
    guidance: Guidance | None,
) -> None:
    if nfe != "any" and (isinstance(nfe, bool) or not isinstance(nfe, int) or nfe < 1):
        raise ValueError(f"nfe must be at least 1 or 'any', got {nfe!r}.")
    check_keeps_labels(generator, "Adversarial flow")
    if nfe != 1 and isinstance(generator, DepthWrapper):
        raise ValueError(
            f"{type(generator).__name__} uses the source time for its repetitions: it is a "
            f"one-step model, and nfe must be 1, not {nfe!r}."
        )
    check_embedders(generator, discriminator, nfe)
    if guidance is not None:
        guidance.check_steps(nfe)


def _gradient_normalization(
    setting: bool | Mapping[str, Any] | GradientNormalization,
) -> GradientNormalization | None:
    if isinstance(setting, GradientNormalization):
        return setting
    if isinstance(setting, Mapping):
        return GradientNormalization(**setting)
    return GradientNormalization() if setting else None
