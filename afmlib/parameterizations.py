r"""How the output of a network :math:`g` becomes a step from time :math:`s` to :math:`t`.

References:
    | Adversarial Flow Models (Lin et al., 2025), Sec. 3.7
    | https://arxiv.org/abs/2511.22475
"""

__all__ = [
    "InstantaneousVelocity",
    "SamplePrediction",
    "VelocityPrediction",
    "parameterization_of",
]

from afmlib.interfaces import Generator, Parameterization
from afmlib.ops.flow import expand
from afmlib.typing import Labels, Latents, Timesteps


class SamplePrediction(Parameterization):
    r"""The network returns the target itself: :math:`x_t = g(x_s, s, t)`."""

    def forward(
        self,
        generator: Generator,
        latents: Latents,
        labels: Labels,
        timesteps_src: Timesteps,
        timesteps_tgt: Timesteps,
    ) -> Latents:
        return generator(latents, labels, timesteps_src, timesteps_tgt)


class VelocityPrediction(Parameterization):
    r"""The network returns the mean velocity: :math:`x_t = x_s - (s - t) \, g(x_s, s, t)`."""

    def forward(
        self,
        generator: Generator,
        latents: Latents,
        labels: Labels,
        timesteps_src: Timesteps,
        timesteps_tgt: Timesteps,
    ) -> Latents:
        velocity = generator(latents, labels, timesteps_src, timesteps_tgt)
        return latents - expand(timesteps_src - timesteps_tgt, latents) * velocity


class InstantaneousVelocity(Parameterization):
    r"""The network returns the velocity at the source, and a step is one of Euler's.

    .. math:: x_t = x_s - (s - t) \, g(x_s, s, s)

    What differs from :class:`VelocityPrediction` is that the network never learns where the step
    ends: it was trained, as in flow matching, on the velocity of the path itself.
    """

    def forward(
        self,
        generator: Generator,
        latents: Latents,
        labels: Labels,
        timesteps_src: Timesteps,
        timesteps_tgt: Timesteps,
    ) -> Latents:
        velocity = generator(latents, labels, timesteps_src, timesteps_src)
        return latents - expand(timesteps_src - timesteps_tgt, latents) * velocity


def parameterization_of(prediction: str) -> Parameterization:
    """Returns the reading of what a network is said to predict.

    Raises:
        ValueError: If that is neither "sample" nor "velocity".
    """
    choices: dict[str, type[Parameterization]] = {
        "sample": SamplePrediction,
        "velocity": VelocityPrediction,
    }
    if prediction not in choices:
        raise ValueError(f"prediction is one of {list(choices)}, got {prediction!r}.")
    return choices[prediction]()
