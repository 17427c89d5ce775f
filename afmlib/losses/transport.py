r"""The transport loss, which prefers the map to the data that moves the noise least.

References:
    | Adversarial Flow Models (Lin et al., 2025), Sec. 3.2, 3.3
    | https://arxiv.org/abs/2511.22475
"""

__all__ = ["transport_loss"]

from afmlib.typing import Latents, PerSample


def transport_loss(samples: Latents, latents: Latents, widths: PerSample) -> PerSample:
    r"""Returns the squared distance that each sample moved, per element and unit of time.

    .. math:: \frac{1}{n \, w(s, t)} \| G(x_s, s, t) - x_s \|_2^2

    Args:
        samples: The output :math:`G(x_s, s, t)` of the generator.
        latents: Its input :math:`x_s`.
        widths: The width :math:`w(s, t)` of each step.
    """
    return (samples - latents).square().flatten(1).mean(1) / widths
