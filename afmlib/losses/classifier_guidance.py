r"""Classifier guidance: a frozen classifier pulls generated samples to their classes.

.. math:: L_\text{cg} = \lambda \, \mathbb{E} \left[ - \log C(c \mid x_{t'}, t') \right]

A one-step generator returns clean samples. There the classifier is saturated and its gradient says
little about the data. So :class:`ClassifierGuidance` adds noise to the samples and classifies them
along the flow: :math:`x_{t'} = (1 - t') \, G(z, c) + t' z'` with
:math:`t' \sim U(\text{lo}, \text{hi})`. A multi-step generator returns samples at a target time
:math:`t`. :class:`TargetClassifierGuidance` classifies them unchanged, at :math:`t' = t`.

The classifier is frozen and in evaluation mode. Gradients pass through it to the samples.

References:
    | Adversarial Flow Models (Lin et al., 2025), Sec. 3.5, App. F
    | https://arxiv.org/abs/2511.22475

    | Diffusion Models Beat GANs on Image Synthesis (Dhariwal and Nichol, 2021), for the guidance of
      a diffusion model by a classifier of noisy images
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
"""The largest distance at which two times count as equal, since grid times are rounded."""


class ClassifierGuidance(Guidance):
    r"""Classifies samples with new noise: :math:`- \lambda \log C(c \mid x_{t'}, t')`.

    Args:
        classifier: The classifier :math:`C`. It is frozen.
        scale: The weight :math:`\lambda`, per sample.
        timesteps: The range of :math:`t'`, in [0, 1]; (0, 0) classifies the clean samples.

    Raises:
        ValueError: If an argument is out of range.
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
        return f"scale={self.scale:g}, timesteps={self.timesteps}"

    def check_steps(self, nfe: int | Literal["any"]) -> None:
        if nfe != 1:
            raise ValueError(
                f"ClassifierGuidance needs the clean samples of nfe 1, got nfe {nfe!r}: use "
                "TargetClassifierGuidance."
            )

    def forward(
        self,
        samples: Latents,
        labels: Labels,
        timesteps_tgt: Timesteps,
        noises_cg: Latents,
        timesteps_cg: Timesteps,
    ) -> PerSample:
        del timesteps_tgt
        noisy = interpolate(samples, noises_cg, timesteps_cg)
        logits = self.classifier(noisy, timesteps_cg)
        return self.scale * cross_entropy(logits, labels, reduction="none")


class TargetClassifierGuidance(Guidance):
    r"""Classifies samples at some of the target times: :math:`- \lambda \log C(c \mid x_t, t)`.

    The loss of a sample at any other target time is 0. The mean is over the whole batch, so fewer
    times mean less guidance.

    Args:
        classifier: The classifier :math:`C`. It is frozen.
        scale: The weight :math:`\lambda`, per sample.
        targets: Target times, or ranges of them: ``[0, 0.25]`` is two times, ``[[0, 0.25]]`` is a
            range that includes its ends. Times match up to 0.0001.

    Raises:
        ValueError: If an argument is out of range.
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
        return f"scale={self.scale:g}, targets={self.targets}"

    def check_steps(self, nfe: int | Literal["any"]) -> None:
        for low, high in self.targets:
            target = low if low == high else [low, high]
            if nfe == "any":
                if low == high:
                    raise ValueError(
                        f"With nfe 'any' almost no step ends at the single target {target}: give "
                        "ranges, such as targets=[[0, 0.25]]."
                    )
            elif not _is_within(torch.arange(nfe) / nfe, low, high).any():
                raise ValueError(
                    f"With nfe {nfe} no step ends at the target {target}. Steps end at i / {nfe} "
                    f"for i from 0 to {nfe - 1}: choose targets among these."
                )

    def forward(
        self,
        samples: Latents,
        labels: Labels,
        timesteps_tgt: Timesteps,
        noises_cg: Latents,
        timesteps_cg: Timesteps,
    ) -> PerSample:
        del noises_cg, timesteps_cg
        logits = self.classifier(samples, timesteps_tgt)
        losses = cross_entropy(logits, labels, reduction="none")
        is_target = [_is_within(timesteps_tgt, low, high) for low, high in self.targets]
        # Not a product: 0 times an infinite loss would be NaN.
        return self.scale * torch.where(torch.stack(is_target).any(0), losses, 0)


def _is_within(timesteps: Timesteps, low: float, high: float) -> Tensor:
    return (timesteps >= low - TIME_TOLERANCE) & (timesteps <= high + TIME_TOLERANCE)


def _check_scale(scale: float) -> None:
    if not scale >= 0:
        raise ValueError(f"scale must not be negative, got {scale}.")
