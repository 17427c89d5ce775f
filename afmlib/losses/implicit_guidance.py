r"""Guidance by the implicit classifier of a class-conditional flow model.

The velocity :math:`v` of flow matching is :math:`v(x_t, t) = - \frac{x_t}{1 - t} - \frac{t}{1 - t}
\nabla \log p_t(x_t)`, and likewise with a class. By Bayes' rule the difference of the two is the
gradient of a classifier:

.. math::
    g = v(x_{t'}, t') - v(x_{t'}, t', c)
      = \frac{t'}{1 - t'} \, \nabla_{\!x_{t'}} \log p(c \mid x_{t'})

Guidance only needs this gradient (Eq. 27, 28):

.. math:: L = - \lambda \, \tfrac1n \, \langle G(z, c), \, \operatorname{sg}(g) \rangle ,
    \qquad x_{t'} = (1 - t') \, G(z, c) + t' z'

A gradient descent step then moves :math:`G` along :math:`g`, to where its class is more likely.
Only the gradient of this loss has a meaning, not its value. Unlike `ClassifierGuidance`, it is a
mean over the :math:`n` elements and has the weight :math:`t' / (1 - t')^2`, which is 0 at time 0.

References:
    | Adversarial Flow Models (Lin et al., 2025), App. F
    | https://arxiv.org/abs/2511.22475

    | Classifier-Free Diffusion Guidance (Ho and Salimans, 2022), for the implicit classifier
    | https://arxiv.org/abs/2207.12598
"""

__all__ = ["ImplicitClassifierGuidance"]

from collections.abc import Sequence
from typing import Literal

import torch

from afmlib.interfaces import Generator, Guidance
from afmlib.ops.flow import interpolate
from afmlib.ops.time_grid import check_time_range
from afmlib.typing import Labels, Latents, PerSample, Timesteps


class ImplicitClassifierGuidance(Guidance):
    r"""Moves samples along the difference of a flow model's velocities without and with the class.

    Args:
        model: A generator trained by flow matching with label dropout. It is frozen. It gets the
            same time twice, and its output is the velocity at that time.
        scale: The weight :math:`\lambda` of the mean over the elements of a sample.
        timesteps: The range of :math:`t'`, in [0, 1].

    Raises:
        ValueError: If an argument is out of range, or the model has no null class.
    """

    def __init__(
        self, model: Generator, scale: float, timesteps: Sequence[float] = (0.0, 1.0)
    ) -> None:
        super().__init__()
        if not scale >= 0:
            raise ValueError(f"scale must not be negative, got {scale}.")
        if model.num_classes is None or not model.class_dropout_prob > 0:
            raise ValueError(
                f"{type(model).__name__} has no null class: implicit guidance needs a flow model "
                "trained with class_dropout_prob above 0."
            )
        self.model = model.requires_grad_(False).eval()
        self.null_class = model.num_classes
        self.scale = scale
        self.timesteps = check_time_range("timesteps", timesteps)

    def extra_repr(self) -> str:
        return f"scale={self.scale:g}, timesteps={self.timesteps}"

    def check_steps(self, nfe: int | Literal["any"]) -> None:
        if nfe != 1:
            raise ValueError(
                f"ImplicitClassifierGuidance needs the clean samples of nfe 1, got nfe {nfe!r}: "
                "use TargetClassifierGuidance."
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
        with torch.no_grad():
            noisy = interpolate(samples, noises_cg, timesteps_cg)
            both = torch.cat([torch.full_like(labels, self.null_class), labels])
            times = timesteps_cg.repeat(2)
            twice = noisy.repeat(2, *(1,) * (noisy.ndim - 1))
            without, with_class = self.model(twice, both, times, times).chunk(2)
            directions = without - with_class  # Eq. 27
        return -self.scale * (samples * directions).flatten(1).mean(1)
