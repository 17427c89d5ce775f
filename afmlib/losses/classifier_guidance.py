r"""Classifier guidance: a frozen classifier of noised samples pulls a generator to its classes.

.. math:: L_\text{cg} = \lambda \, \mathbb{E} \left[ - \log C(c \mid x_{t'}, t') \right]

In one step the samples are clean, where a classifier is sure of itself and its gradient says
little about the data. So they are noised again, and classified along the flow:
:math:`x_{t'} = (1 - t') \, G(z, c) + t' z'` with :math:`t' \sim U(\text{lo}, \text{hi})`. In
several steps a sample is at a target time :math:`t` already, and is classified as it is, at
:math:`t' = t`.

The classifier is held still, in evaluation mode; gradients pass through it to the samples.

References:
    | Adversarial Flow Models (Lin et al., 2025), Sec. 3.5, App. F
    | https://arxiv.org/abs/2511.22475

    | Diffusion Models Beat GANs on Image Synthesis (Dhariwal and Nichol, 2021), for the guidance of
      a diffusion model by a classifier of noised images
    | https://arxiv.org/abs/2105.05233
"""

__all__ = ["ClassifierGuidance", "TargetClassifierGuidance"]

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from afmlib.interfaces import Classifier, Guidance
from afmlib.ops.flow import interpolate
from afmlib.ops.time_grid import check_time_range
from afmlib.typing import Labels, Latents, PerSample, Timesteps

TIME_TOLERANCE = 1e-4
"""How far a target time may be from one of the list: times of a grid are rounded."""


class ClassifierGuidance(Guidance):
    r"""Classifies samples that are noised again: :math:`- \lambda \log C(c \mid x_{t'}, t')`.

    Args:
        classifier: The classifier :math:`C`, which is frozen.
        scale: The weight :math:`\lambda`, per sample.
        timesteps: The range of :math:`t'`, in [0, 1]; (0, 0) classifies the samples as they are.

    Raises:
        ValueError: If an argument is out of its domain.
    """

    def __init__(
        self,
        classifier: Classifier,
        scale: float,
        timesteps: Sequence[float] = (0.0, 0.1),
    ) -> None:
        super().__init__()
        _check_scale(scale)
        self.classifier = classifier.requires_grad_(False).eval()
        self.scale = scale
        self.timesteps = check_time_range("timesteps", timesteps)

    def extra_repr(self) -> str:
        """Shows the settings in the module's representation."""
        return f"scale={self.scale:g}, timesteps={self.timesteps}"

    def check_steps(self, nfe: int | Literal["any"]) -> None:
        """Refuses several steps, whose samples are noised already.

        Raises:
            ValueError: Names the guidance for these.
        """
        if nfe != 1:
            raise ValueError(
                "ClassifierGuidance noises samples that are clean, as in one step: with nfe "
                f"{nfe!r} take TargetClassifierGuidance."
            )

    def forward(
        self,
        samples: Latents,
        labels: Labels,
        timesteps_tgt: Timesteps,
        noises_cg: Latents,
        timesteps_cg: Timesteps,
    ) -> PerSample:
        """Returns the weighted cross-entropy of each sample."""
        del timesteps_tgt
        noised = interpolate(samples, noises_cg, timesteps_cg)
        return self.scale * _surprise(self.classifier, noised, labels, timesteps_cg)


class TargetClassifierGuidance(Guidance):
    r"""Classifies samples at some of the target times: :math:`- \lambda \log C(c \mid x_t, t)`.

    A sample whose target time is elsewhere counts as 0, and the mean is over all of the batch: the
    fewer times, the less guidance.

    Args:
        classifier: The classifier :math:`C`, which is frozen.
        scale: The weight :math:`\lambda`, per sample.
        targets: Target times, or ranges of them: ``[0, 0.25]`` are two times, ``[[0, 0.25]]`` is a
            range, ends included. A time is met up to 0.0001.

    Raises:
        ValueError: If an argument is out of its domain.
    """

    def __init__(
        self, classifier: Classifier, scale: float, targets: Sequence[float | Sequence[float]]
    ) -> None:
        super().__init__()
        _check_scale(scale)
        if not targets:
            raise ValueError("targets must name at least one target time.")
        self.classifier = classifier.requires_grad_(False).eval()
        self.scale = scale
        self.targets = [
            check_time_range("A target", target if isinstance(target, Sequence) else (target,) * 2)
            for target in targets
        ]

    def extra_repr(self) -> str:
        """Shows the settings in the module's representation."""
        return f"scale={self.scale:g}, targets={self.targets}"

    def check_steps(self, nfe: int | Literal["any"]) -> None:
        """Refuses a target at which no step ends, or one of any step hardly ever.

        Raises:
            ValueError: Names the target, and where steps end.
        """
        for low, high in self.targets:
            target = low if low == high else [low, high]
            if nfe == "any":
                if low == high:
                    raise ValueError(
                        f"Hardly any step ends at {target} with nfe 'any': give targets as ranges, "
                        "such as [[0, 0.25]]."
                    )
            elif not _is_within(torch.arange(nfe) / nfe, low, high).any():
                raise ValueError(
                    f"No step ends at the target {target} with nfe {nfe}: they end at i / {nfe}, i "
                    f"from 0 to {nfe - 1}; give targets out of these."
                )

    def forward(
        self,
        samples: Latents,
        labels: Labels,
        timesteps_tgt: Timesteps,
        noises_cg: Latents,
        timesteps_cg: Timesteps,
    ) -> PerSample:
        """Returns the weighted cross-entropy of each sample at one of the times, 0 of others."""
        del noises_cg, timesteps_cg
        surprise = _surprise(self.classifier, samples, labels, timesteps_tgt)
        # A product would make NaN of what is not asked for and infinite.
        return self.scale * torch.where(self._is_target(timesteps_tgt), surprise, 0)

    def _is_target(self, timesteps: Timesteps) -> Tensor:
        met = [_is_within(timesteps, low, high) for low, high in self.targets]
        return torch.stack(met).any(0)


def _is_within(timesteps: Timesteps, low: float, high: float) -> Tensor:
    return (timesteps >= low - TIME_TOLERANCE) & (timesteps <= high + TIME_TOLERANCE)


def _surprise(
    classifier: Classifier, latents: Latents, labels: Labels, timesteps: Timesteps
) -> PerSample:
    return cross_entropy(classifier(latents, timesteps), labels, reduction="none")


def _check_scale(scale: float) -> None:
    if not scale >= 0:
        raise ValueError(f"scale must not be negative, got {scale}.")
