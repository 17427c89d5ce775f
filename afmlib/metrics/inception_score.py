r"""The Inception score: is each sample clearly of one class, and are all classes present?

.. math:: \exp \, \mathbb{E}_x \operatorname{KL} ( p(y | x) \, \| \, \mathbb{E}_{x'} p(y | x') )

for the classes :math:`y` that the classifier of the extractor predicts for a sample :math:`x`. It
lies between 1 and the number of classes, and does not use real data.

The samples are shuffled and divided into ``splits`` equal parts; mean and std over the parts are
returned. This is the implementation of torch-fidelity. The ADM suite uses parts of 5000 in the
order of the file instead, as ``part_size=5000`` does. A part with few classes scores too low, so
the order of labels matters there.

References:
    | Improved Techniques for Training GANs (Salimans et al., 2016)
    | https://arxiv.org/abs/1606.03498
"""

__all__ = ["InceptionScore"]

from typing import ClassVar

import torch
from torch import Tensor

from afmlib.interfaces import Evaluation, EvaluationSetup, Metric, Number


class InceptionScore(Metric):
    """The score of the logits of the extractor.

    Args:
        splits: The number of parts of the shuffled samples.
        part_size: The samples of a part, in their order, as in ADM. The last part may be smaller.
            Defaults to ``splits`` parts of the shuffled samples.

    Raises:
        ValueError: If a number is not positive.
    """

    numbers: ClassVar = {
        "inception_score": Number(
            "Inception score", "higher", meaning="clarity and variety of the predicted classes"
        ),
        "inception_score_std": Number(
            "Inception score, std", meaning="of the Inception score over its splits"
        ),
    }
    requires = frozenset({"logits"})

    def __init__(self, splits: int = 10, part_size: int | None = None) -> None:
        if splits < 1:
            raise ValueError(f"splits must be at least 1, got {splits}.")
        if part_size is not None and part_size < 1:
            raise ValueError(f"part_size must be at least 1, got {part_size}.")
        self.splits = splits
        self.part_size = part_size

    def check_setup(self, setup: EvaluationSetup) -> None:
        """Raises if the data or the number of samples does not fit."""
        self._check_number(setup.num_samples)

    def _check_number(self, num_samples: int) -> None:
        if self.part_size is None and num_samples < self.splits:
            raise ValueError(f"{self.splits} splits need as many samples, got {num_samples}")

    def __call__(self, evaluation: Evaluation) -> dict[str, float]:
        """Computes ``inception_score`` and, over the parts, ``inception_score_std``.

        Raises:
            ValueError: If the extractor has no logits, or a part would be empty.
        """
        from torch_fidelity.metric_isc import (
            KEY_METRIC_ISC_MEAN,
            KEY_METRIC_ISC_STD,
            isc_features_to_metric,
        )

        logits = evaluation.sample_output("logits")
        self._check_number(len(logits))
        if self.part_size is not None:
            scores = torch.stack(
                [_score(part) for part in torch.split(logits.double(), self.part_size)]
            )
            return {
                "inception_score": scores.mean().item(),
                "inception_score_std": scores.std(correction=0).item(),
            }
        seed = evaluation.seed % 2**32
        values = isc_features_to_metric(logits, self.splits, shuffle=True, rng_seed=seed)
        return {
            "inception_score": values[KEY_METRIC_ISC_MEAN],
            "inception_score_std": values[KEY_METRIC_ISC_STD],
        }


def _score(logits: Tensor) -> Tensor:
    log_shares = logits.log_softmax(1)
    mean = log_shares.exp().mean(0)
    return (log_shares.exp() * (log_shares - mean.log())).sum(1).mean().exp()
