r"""Adversarial flow: a generator trained against a discriminator, with a transport loss.

The adversarial loss makes the samples :math:`G(z)` follow the data. Infinitely many maps do so. The
transport loss selects the map that moves the noise least, so that there is one deterministic map to
learn and training is stable:

.. math::
    L_D &= L_D^\text{adv} + \lambda_\text{gp} (R_1 + R_2) + \lambda_\text{cp} L^\text{cp} \\
    L_G &= L_G^\text{adv} + \lambda_\text{ot} L^\text{ot} + L^\text{cg}

A step carries :math:`x_s` to :math:`x_t`. Both come from the same sample with independent noises,
and the discriminator sees only :math:`(x_t, t)`. With the width
:math:`w(s, t)` of the step, penalties are multiplied by :math:`w` and the transport loss is
divided by it.

In the generator's update, samples pass augmentation, gradient normalization and the discriminator,
in this order. The transport and guidance losses see the samples before all of these.

References:
    | Adversarial Flow Models (Lin et al., 2025), Sec. 3
    | https://arxiv.org/abs/2511.22475
"""

__all__ = ["AdversarialFlow", "AdversarialFlowDraws"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from afmlib.interfaces import (
    AdversarialLoss,
    Augmentation,
    BatchStatistic,
    Discriminator,
    Generated,
    Generator,
    GradientPenalty,
    Guidance,
    Objective,
    Parameterization,
    Regularizer,
    Schedule,
    Terms,
)
from afmlib.losses.gradient_normalization import GradientNormalization
from afmlib.losses.gradient_penalty import FiniteDifferencePenalty, half_precision_penalty
from afmlib.losses.relativistic import RelativisticLoss, logit_centering
from afmlib.losses.transport import transport_loss
from afmlib.nn.attention import require_capabilities
from afmlib.nn.frozen import frozen
from afmlib.ops.drawing import (
    RandomSource,
    is_drawn_for,
    normal_like,
    places_in_batch,
    uniform_like,
    wide_dtype,
)
from afmlib.ops.flow import interpolate, step_width
from afmlib.ops.gradient_access import observe_gradient
from afmlib.ops.time_grid import draw_any_steps, draw_fixed_steps
from afmlib.parameterizations import SamplePrediction, VelocityPrediction
from afmlib.schedules import scheduled_value
from afmlib.typing import Labels, Latents, Logits, Scalar, Timesteps


@dataclass
class AdversarialFlowDraws:
    """The random numbers of one update; None for those that its player does not use."""

    noises_src: Latents
    """The noise in the source samples."""

    noises_tgt: Latents | None
    """The noise in the real samples at the target time; None if that is always 0."""

    timesteps_src: Timesteps
    """Where the generator starts."""

    timesteps_tgt: Timesteps
    """Where it ends."""

    noises_r1: Float[Tensor, " penalized *latent"] | None = None
    """Directions of the penalty on real samples, for the penalized part of the batch."""

    noises_r2: Float[Tensor, " penalized *latent"] | None = None
    """Directions of the penalty on generated samples, for the penalized part of the batch."""

    penalty_weights: Float[Tensor, " penalized"] | None = None
    """The size of the batch, divided by the number of penalized samples in it."""

    noises_cg: Latents | None = None
    """Noises for the guidance."""

    timesteps_cg: Timesteps | None = None
    """Times for the guidance, within its range."""

    augmentation: Tensor | None = None
    """Parameters of the augmentation, one row per pair."""

    shared: tuple[Generated, Logits] | None = None
    """With a shared batch: the pass of the generator and the logits of the real samples, from the
    update of the discriminator to that of the generator."""


class AdversarialFlow(Objective):
    r"""Adversarial flow in one step, a fixed number of steps, or any step.

    With ``ot_scale=0`` it is a GAN.

    Args:
        generator: The generator :math:`G`. For several fixed steps it must embed the source time,
            for any step both times.
        discriminator: The discriminator :math:`D`. For several steps it must embed the time.
        loss: The adversarial loss. Defaults to the relativistic one.
        penalty: The gradient penalty. Defaults to finite differences.
        nfe: The number of steps, or "any".
        prediction: What the generator returns, "sample" or "velocity".
        ot_scale: The weight :math:`\lambda_\text{ot}` of the transport loss. Too low and the map
            drifts; too high and the samples stay near the noise.
        gp_scale: The weight :math:`\lambda_\text{gp}` of each penalty.
        gp_fraction: The share of the batch that is penalized, in (0, 1]; at least one sample.
        cp_scale: The weight :math:`\lambda_\text{cp}` of the logit centering.
        shared_batch: Whether the generator's update reuses the batch of the discriminator's update,
            with its samples and its logits of the real samples. This is cheaper, but not in the
            paper. It needs one process.
        gradient_normalization: Whether the adversarial gradient at the samples is normalized, so
            that ``ot_scale`` has the same meaning for every network. Or the arguments of
            :class:`GradientNormalization`, or an instance.
        augmentation: Applied to real and generated samples before the discriminator.
        guidance: Pulls the samples towards their class.
        regularizers: More terms on the generator's samples.

    Raises:
        ValueError: If an argument is out of its domain, or networks or guidance do not fit ``nfe``.
    """

    players: ClassVar[Mapping[str, int]] = {"discriminator": 1, "generator": 1}

    parameterization: Parameterization

    uses_guidance: bool = True
    """Whether the guidance is on. Its random numbers are drawn in any case, ahead of the step."""

    uses_augmentation: bool = True
    """Whether the augmentation is on."""

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
        shared_batch: bool = False,
        gradient_normalization: bool | Mapping[str, Any] | GradientNormalization | None = True,
        augmentation: Augmentation | None = None,
        guidance: Guidance | None = None,
        regularizers: Sequence[Regularizer] = (),
    ) -> None:
        predictions = {"sample": SamplePrediction, "velocity": VelocityPrediction}
        if prediction not in predictions:
            raise ValueError(f"prediction is 'sample' or 'velocity', got {prediction!r}.")
        super().__init__(generator, predictions[prediction](), nfe)
        self.require_no_label_dropout(generator)
        self.require_times(generator, source=nfe != 1, target=nfe == "any")
        if nfe != 1 and not discriminator.embeds_timestep:
            raise ValueError(
                f"nfe {nfe!r} is more than one step, and the {type(discriminator).__name__} embeds "
                "no time: build it with use_timestep=True, or train with nfe 1. A discriminator of "
                "your own declares it as embeds_timestep = True."
            )
        for name, own, other in (
            ("latent_shape", generator.latent_shape, discriminator.latent_shape),
            ("num_classes", generator.num_classes, discriminator.num_classes),
        ):
            if own is not None and other is not None and own != other:
                raise ValueError(
                    f"The generator's {name} is {own}, the discriminator's {other}: give both the "
                    "same sizes."
                )
        if guidance is not None:
            guidance.check_steps(nfe)
        for name, scale in dict(ot_scale=ot_scale, gp_scale=gp_scale, cp_scale=cp_scale).items():
            ends = (scale(0, 1), scale(2**62, 1)) if isinstance(scale, Schedule) else (scale,)
            if not min(ends) >= 0:
                raise ValueError(f"{name} must not be negative, got {min(ends)}.")
        if not 0 < gp_fraction <= 1:
            raise ValueError(f"gp_fraction must be in (0, 1], got {gp_fraction}.")
        self.discriminator = discriminator
        self.loss = RelativisticLoss() if loss is None else loss
        self.penalty = FiniteDifferencePenalty() if penalty is None else penalty
        require_capabilities(discriminator, self.penalty.requires)
        self.ot_scale = ot_scale
        self.gp_scale = gp_scale
        self.gp_fraction = gp_fraction
        self.cp_scale = cp_scale
        self.shares_batch = shared_batch
        if not isinstance(gradient_normalization, GradientNormalization | Mapping):
            gradient_normalization = {} if gradient_normalization else None
        self.gradient_normalization = (
            GradientNormalization(**gradient_normalization)
            if isinstance(gradient_normalization, Mapping)
            else gradient_normalization
        )
        self.augmentation = augmentation
        self.guidance = guidance
        self.regularizers = nn.ModuleList(regularizers)

    # --- Draws ---

    def draw(self, latents: Latents, generator: RandomSource | None = None) -> AdversarialFlowDraws:
        size = len(latents)
        noises_src, noises_tgt = normal_like(latents, size, generator), None
        if self.nfe == 1:  # Real samples have no noise.
            uniform = latents.new_zeros(size, dtype=wide_dtype(latents))
        else:
            noises_tgt = normal_like(latents, size, generator)
            uniform = uniform_like(latents, generator)
        if self.nfe == "any":
            timesteps = draw_any_steps(uniform, uniform_like(latents, generator))
        else:
            timesteps = draw_fixed_steps(uniform, self.nfe)
        draws = AdversarialFlowDraws(noises_src, noises_tgt, *timesteps)
        if is_drawn_for("discriminator", generator):
            places, batch_size = places_in_batch(latents, generator)
            num_penalized = max(round(self.gp_fraction * batch_size), 1)  # The first of the batch.
            here = sum(place < num_penalized for place in places)
            # Under FSDP2 each process must run the network as often as the others.
            draws.noises_r1, draws.noises_r2 = (
                normal_like(latents, max(here, 1), generator) for _ in range(2)
            )
            weight = batch_size / num_penalized if here else 0.0
            draws.penalty_weights = timesteps[0].new_full((max(here, 1),), weight)
        if self.guidance is not None and is_drawn_for("generator", generator):
            low, high = self.guidance.timesteps
            draws.noises_cg = normal_like(latents, size, generator)
            draws.timesteps_cg = low + (high - low) * uniform_like(latents, generator)
        if self.augmentation is not None:
            draws.augmentation = self.augmentation.draw(latents, generator)
        return draws

    # --- Terms ---

    def terms(
        self, player: str, latents: Latents, labels: Labels, draws: AdversarialFlowDraws
    ) -> Mapping[str, Scalar]:
        """Returns the weighted terms whose sum is the loss of a player.

        Raises:
            ValueError: If ``player`` is not "discriminator" or "generator".
        """
        if player == "discriminator":
            return self.discriminator_terms(latents, labels, draws)
        if player == "generator":
            return self.generator_terms(latents, labels, draws)
        raise ValueError(f"The players are {', '.join(self.players)}; got {player!r}.")

    def discriminator_terms(
        self, latents: Latents, labels: Labels, draws: AdversarialFlowDraws
    ) -> Terms:
        """Returns the terms ``adversarial``, ``r1``, ``r2`` and ``centering``."""
        with torch.set_grad_enabled(self.shares_batch):
            generated = self._generate(latents, labels, draws)
        fake = self._augment(generated.samples.detach(), draws)
        real = self._augment(self._real(latents, draws), draws)
        logits_real, logits_fake, r1, r2 = self._scores(real, fake, labels, draws)
        if self.shares_batch:
            draws.shared = generated, logits_real.detach()
        gp_scale = scheduled_value(self.gp_scale, self.num_images, self.total_images)
        cp_scale = scheduled_value(self.cp_scale, self.num_images, self.total_images)
        return Terms(
            adversarial=self.loss.discriminator_loss(logits_real, logits_fake).mean(),
            r1=gp_scale * r1.sum() / len(latents),
            r2=gp_scale * r2.sum() / len(latents),
            centering=cp_scale * logit_centering(logits_real, logits_fake).mean(),
            observed={
                "logits_real": logits_real.detach(),
                "logits_fake": logits_fake.detach(),
                "sign_rate": logits_real.detach().sign().mean(),
            },
        )

    def generator_terms(
        self, latents: Latents, labels: Labels, draws: AdversarialFlowDraws
    ) -> Terms:
        """Returns ``adversarial``, ``transport`` and, if present, ``guidance`` and regularizers."""
        shared = draws.shared
        generated = self._generate(latents, labels, draws) if shared is None else shared[0]
        samples, observed = generated.samples, dict[str, Tensor]()

        def adversarial(fake: Latents) -> Scalar:
            with frozen(self.discriminator):
                if shared is None:
                    with torch.no_grad():
                        real = self._augment(self._real(latents, draws), draws)
                        logits_real = self.discriminator(real, labels, draws.timesteps_tgt)
                else:
                    logits_real = shared[1]
                logits_fake = self.discriminator(fake, labels, draws.timesteps_tgt)
            observed["logits_real"] = logits_real.detach()
            observed["logits_fake"] = logits_fake.detach()
            return self.loss.generator_loss(logits_real, logits_fake).mean()

        fake = self._augment(observe_gradient(samples, observed, "gradient_adversarial"), draws)
        normalization = self.gradient_normalization
        terms = Terms(
            adversarial=adversarial(fake)
            if normalization is None
            else normalization(fake, adversarial),
            observed=observed,
        )

        # The other terms see the samples as they are.
        ot_scale = scheduled_value(self.ot_scale, self.num_images, self.total_images)
        moved = observe_gradient(samples, observed, "gradient_transport")
        widths = step_width(draws.timesteps_src, draws.timesteps_tgt)
        terms["transport"] = ot_scale * transport_loss(moved, generated.sources, widths).mean()
        if self.guidance is not None and self.uses_guidance:
            guided = self.guidance(
                observe_gradient(samples, observed, "gradient_guidance"),
                labels,
                draws.timesteps_tgt,
                draws.noises_cg,
                draws.timesteps_cg,
            )
            terms["guidance"] = guided.mean()
        for name, regularizer in zip(self.regularizer_names, self.regularizers, strict=True):
            assert isinstance(regularizer, Regularizer)
            scale = scheduled_value(regularizer.scale, self.num_images, self.total_images)
            values = regularizer(generated)
            if values.shape != labels.shape:
                raise ValueError(
                    f"{type(regularizer).__name__} must return one value per sample, shape "
                    f"{tuple(labels.shape)}; it returned shape {tuple(values.shape)}."
                )
            terms[name] = scale * values.mean()
        return terms

    @property
    def regularizer_names(self) -> list[str]:
        """The names of the regularizers' terms: their classes, with a number for repeats."""
        names = [type(regularizer).__name__ for regularizer in self.regularizers]
        return [
            f"{name}_{names[:index].count(name) + 1}" if name in names[:index] else name
            for index, name in enumerate(names)
        ]

    def _generate(self, latents: Latents, labels: Labels, draws: AdversarialFlowDraws) -> Generated:
        s, t = draws.timesteps_src, draws.timesteps_tgt
        sources = interpolate(latents, draws.noises_src, s)
        samples = self.parameterization(self.generator, sources, labels, s, t)
        return Generated(samples, sources, latents, labels, s, t)

    def _real(self, latents: Latents, draws: AdversarialFlowDraws) -> Latents:
        if draws.noises_tgt is None:
            return latents
        return interpolate(latents, draws.noises_tgt, draws.timesteps_tgt)

    def _augment(self, latents: Latents, draws: AdversarialFlowDraws) -> Latents:
        if self.augmentation is None or not self.uses_augmentation:
            return latents
        return self.augmentation(latents, draws.augmentation, self.num_images)

    def _scores(
        self, real: Latents, fake: Latents, labels: Labels, draws: AdversarialFlowDraws
    ) -> tuple[Logits, Logits, Float[Tensor, " penalized"], Float[Tensor, " penalized"]]:
        """Returns the logits of real and generated samples, and R1 and R2, weighted.

        The weights are the share of the penalized samples and the widths of their steps.
        """
        if draws.noises_r1 is None or draws.noises_r2 is None or draws.penalty_weights is None:
            raise ValueError("The draws are those of another player: they have no noises_r1.")
        size, device = len(draws.noises_r1), real.device.type
        points = torch.cat([real[:size], fake[:size]])
        noises = torch.cat([draws.noises_r1, draws.noises_r2])

        def score(*parts: Tensor) -> Tensor:  # Each part has the first rows of the batch.
            rows = [len(part) for part in parts]
            times = torch.cat([draws.timesteps_tgt[:n] for n in rows])
            return self.discriminator(
                torch.cat(parts), torch.cat([labels[:n] for n in rows]), times
            )

        def critic(latents: Latents) -> Logits:
            return score(*torch.split(latents, size))

        if device != "meta" and torch.is_autocast_enabled(device):
            logits_real, logits_fake = score(real, fake).chunk(2)
            half = torch.get_autocast_dtype(device)
            with torch.autocast(device, enabled=False):
                slopes = half_precision_penalty(self.penalty, critic, points, noises, half)
        else:
            probes = self.penalty.probes(points, noises)
            logits = score(real, fake, *(() if probes is None else torch.split(probes, size)))
            logits_real, logits_fake = logits[: 2 * len(real)].chunk(2)
            clean = torch.cat([logits_real[:size], logits_fake[:size]])
            rest = logits[2 * len(real) :]
            slopes = self.penalty(
                critic if probes is None else lambda _: rest, points, clean, noises
            )
        widths = step_width(draws.timesteps_src, draws.timesteps_tgt)[:size]
        weights = (widths * draws.penalty_weights).to(slopes.dtype)
        r1, r2 = slopes.chunk(2)
        return logits_real, logits_fake, r1 * weights, r2 * weights

    # --- What the engine asks ---

    def batch_statistics(self, player: str) -> Sequence[BatchStatistic]:
        if player != "generator" or self.gradient_normalization is None:
            return ()
        return (self.gradient_normalization,)

    @property
    def discriminator_saturated_at_zero(self) -> bool:  # type: ignore[override]
        return self.loss.won_at_zero

    def settings(self) -> dict[str, Any]:
        """Returns ``ot_scale``, and ``guidance`` and ``augmentation`` (on or off) if present."""
        return {
            "ot_scale": self.ot_scale,
            **({} if self.guidance is None else {"guidance": self.uses_guidance}),
            **({} if self.augmentation is None else {"augmentation": self.uses_augmentation}),
        }

    def change_setting(self, name: str, value: Any) -> None:
        """Changes one of the `settings`.

        Raises:
            TypeError: If a switch is not a bool, or the scale not a number.
            ValueError: If the scale is negative.
        """
        if name == "ot_scale":
            if isinstance(value, bool) or not isinstance(value, int | float | Schedule):
                raise TypeError(f"ot_scale is a number, got {value!r}.")
            if not isinstance(value, Schedule) and not value >= 0:
                raise ValueError(f"ot_scale must not be negative, got {value}.")
            self.ot_scale = value
        elif not isinstance(value, bool):
            raise TypeError(f"{name} is true or false, got {value!r}.")
        elif name == "guidance":
            self.uses_guidance = value
        elif name == "augmentation":
            self.uses_augmentation = value
        else:
            super().change_setting(name, value)
