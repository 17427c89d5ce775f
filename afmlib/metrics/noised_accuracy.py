r"""The accuracy of a classifier of noisy latents, at given times of the flow.

At time :math:`t` it sees :math:`(1 - t) \, x + t \, z` for held-out images :math:`x`. Its accuracy
falls with :math:`t`, to chance at 1.
"""

__all__ = ["NoisedAccuracy"]

from collections.abc import Sequence
from typing import ClassVar

import torch

from afmlib.interfaces import Classifier, Evaluation, Metric, Number
from afmlib.ops.flow import interpolate
from afmlib.typing import Labels, Latents


class NoisedAccuracy(Metric):
    """The accuracy of a classifier at given times, for runs of `ClassifierTraining`.

    Args:
        timesteps: The times, in [0, 1].

    Raises:
        ValueError: If there are no times, or one is out of its domain.
    """

    numbers: ClassVar = {
        "accuracy_at_*": Number(
            "accuracy at time *",
            "higher",
            meaning="share of held-out images that the classifier gets right at this noise level",
        )
    }

    requires = frozenset({"samples", "noises", "classifier"})

    def __init__(self, timesteps: Sequence[float] = (0.0, 0.25, 0.5, 0.75)) -> None:
        if not timesteps or not all(0 <= time <= 1 for time in timesteps):
            raise ValueError(f"timesteps must be in [0, 1], got {list(timesteps)}.")
        self.timesteps = list(timesteps)

    def __call__(self, evaluation: Evaluation) -> dict[str, float]:
        """Computes ``accuracy_at_<time>`` for each time.

        Raises:
            ValueError: If no classifier is evaluated.
        """
        classifier, noises = evaluation.classifier, evaluation.noises
        if classifier is None or noises is None:
            raise ValueError(
                "NoisedAccuracy evaluates a classifier, for runs of ClassifierTraining."
            )
        images, labels = evaluation.need_samples(), evaluation.need_labels()
        values = {}
        for time in self.timesteps:
            num_right = 0
            for rows in torch.split(torch.arange(len(labels)), evaluation.batch_size):
                num_right += _num_right(classifier, images[rows], labels[rows], noises[rows], time)
            values[f"accuracy_at_{time:g}"] = num_right / len(labels)
        return values


@torch.no_grad()
def _num_right(
    classifier: Classifier, latents: Latents, labels: Labels, noises: Latents, time: float
) -> int:
    like = next(classifier.parameters(), torch.empty(0))
    times = torch.full((len(labels),), float(time))
    noised = interpolate(latents, noises, times).to(like)
    predicted = classifier(noised, times.to(like.device)).argmax(1)
    return int((predicted.cpu() == labels).sum())
