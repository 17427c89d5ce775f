r"""Guidance by the classifier that is implicit in a class-conditional flow model.

A velocity :math:`v` of flow matching is :math:`v(x_t, t) = - \frac{x_t}{1 - t} - \frac{t}{1 - t}
\nabla \log p_t(x_t)`, and the same with a class. By Bayes' rule the difference of the two is the
gradient of a classifier:

.. math::
    g = v(x_{t'}, t') - v(x_{t'}, t', c)
      = \frac{t'}{1 - t'} \, \nabla_{\!x_{t'}} \log p(c \mid x_{t'})

which is all that guidance needs (Eq. 27, 28):

.. math:: L = - \lambda \, \tfrac1n \, \langle G(z, c), \, \operatorname{sg}(g) \rangle ,
    \qquad x_{t'} = (1 - t') \, G(z, c) + t' z'

so that a step of gradient descent moves :math:`G` along :math:`g`, to where its class is likelier.
The value of the loss means nothing; its gradient does. Compared with `ClassifierGuidance`, it is a
mean over the :math:`n` elements, and weighs a time by :math:`t' / (1 - t')^2`: none at 0.

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
        model: A generator trained by flow matching with dropped labels, which is frozen. Its output
            is read as the velocity at the one time that it is given twice.
        scale: The weight :math:`\lambda`, of the mean over the elements of a sample.
        timesteps: The range of :math:`t'`, in [0, 1].

    Raises:
        ValueError: If an argument is out of its domain, or the model has no null class.
    """

    def __init__(
        self, model: Generator, scale: float, timesteps: Sequence[float] = (0.0, 1.0)
    ) -> None:
        super().__init__()
        if not scale >= 0:
            raise ValueError(f"scale must not be negative, got {scale}.")
        if model.num_classes is None or not model.class_dropout_prob > 0:
            raise ValueError(
                f"The {type(model).__name__} has no null class: implicit guidance needs a flow "
                "model that was trained with a class_dropout_prob above 0."
            )
        self.model = model.requires_grad_(False).eval()
        self.null_class = model.num_classes
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
                "ImplicitClassifierGuidance noises samples that are clean, as in one step: with "
                f"nfe {nfe!r} take TargetClassifierGuidance."
            )

    def forward(
        self,
        samples: Latents,
        labels: Labels,
        timesteps_tgt: Timesteps,
        noises_cg: Latents,
        timesteps_cg: Timesteps,
    ) -> PerSample:
        """Returns minus the mean product of each sample with where it should go."""
        del timesteps_tgt
        with torch.no_grad():
            noised = interpolate(samples, noises_cg, timesteps_cg)
            directions = self._directions(noised, labels, timesteps_cg)
        return -self.scale * (samples * directions).flatten(1).mean(1)

    def _directions(self, latents: Latents, labels: Labels, timesteps: Timesteps) -> Latents:
        """Returns the velocity without a class less that with it, by one call (Eq. 27)."""
        both = torch.cat([torch.full_like(labels, self.null_class), labels])
        times = timesteps.repeat(2)
        repeated = latents.repeat(2, *(1,) * (latents.ndim - 1))
        without, with_class = self.model(repeated, both, times, times).chunk(2)
        return without - with_class
