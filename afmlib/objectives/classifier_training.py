r"""Training of the guidance classifier: cross-entropy on noisy latents at all times.

.. math:: L = - \mathbb{E} \, \log C(c \mid (1 - t) \, x + t \, z, \; t) , \quad t \sim U(0, 1)

References:
    | Adversarial Flow Models (Lin et al., 2025), Sec. 3.5, App. F
    | https://arxiv.org/abs/2511.22475
"""

__all__ = ["ClassifierTraining", "ClassifierTrainingDraws"]

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch.nn.functional import cross_entropy

from afmlib.interfaces import Classifier, Objective, Terms
from afmlib.ops.drawing import RandomSource, normal_like, uniform_like
from afmlib.ops.flow import interpolate
from afmlib.typing import Labels, Latents, Timesteps


@dataclass
class ClassifierTrainingDraws:
    """The random numbers of one update."""

    noises: Latents
    """The noise end of the path."""

    timesteps: Timesteps
    """The times at which latents are classified."""


class ClassifierTraining(Objective):
    """Trains a classifier of noisy latents, for the guidance of generators.

    Args:
        classifier: The network.
    """

    classifier: Classifier
    """The network."""

    players: ClassVar[Mapping[str, int]] = {"classifier": 1}
    ema_player: ClassVar[str] = "classifier"

    def __init__(self, classifier: Classifier) -> None:
        super().__init__(classifier)

    def draw(
        self, latents: Latents, generator: RandomSource | None = None
    ) -> ClassifierTrainingDraws:
        return ClassifierTrainingDraws(
            noises=normal_like(latents, len(latents), generator),
            timesteps=uniform_like(latents, generator),
        )

    def terms(
        self, player: str, latents: Latents, labels: Labels, draws: ClassifierTrainingDraws
    ) -> Terms:
        """Returns the term ``cross_entropy``; observes the accuracy."""
        noisy = interpolate(latents, draws.noises, draws.timesteps)
        logits = self.classifier(noisy, draws.timesteps)
        accuracy = (logits.detach().argmax(1) == labels).to(logits.dtype)
        return Terms(cross_entropy=cross_entropy(logits, labels), observed={"accuracy": accuracy})
