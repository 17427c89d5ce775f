r"""The Frechet distance between the features of samples and of real images.

Each set of features is summarised by its mean and covariance, and the Gaussians that have these
are compared:

.. math:: \| \mu - \mu' \|^2 + \operatorname{tr}(\Sigma + \Sigma' - 2 (\Sigma \Sigma')^{1/2})

It falls with the number of samples: compare at equal numbers only. It does not see what the two
moments do not see: stand precision, recall and diversity beside it.

References:
    | GANs Trained by a Two Time-Scale Update Rule (Heusel et al., 2017)
    | https://arxiv.org/abs/1706.08500

    | High-fidelity performance metrics for generative models in PyTorch (Obukhov et al., 2020)
    | https://github.com/toshas/torch-fidelity
"""

__all__ = ["FrechetDistance", "frechet_distance"]

import math

from torch import Tensor
from torch.nn.functional import pad

from afmlib.interfaces import Metric
from afmlib.metrics.evaluation import MAX_REAL, Evaluation

MAX_PIXELS = 1024
"""The most numbers of an image that are compared as they are: their covariance is square."""


def frechet_distance(features: Tensor, real_features: Tensor) -> float:
    """Computes the squared Frechet distance of the Gaussians fitted to two sets of rows.

    It is torch-fidelity's, in float64.

    Raises:
        ValueError: If there are fewer than two rows.
    """
    from torch_fidelity.metric_fid import (
        KEY_METRIC_FID,
        fid_features_to_statistics,
        fid_statistics_to_metric,
    )

    numbers = (len(features), len(real_features))
    if min(numbers) < 2:
        raise ValueError(f"A covariance needs at least two samples, got {numbers}.")
    # A column of zeros changes nothing, but lets a covariance of one number be a matrix.
    columns = [pad(rows.double().cpu(), (0, 1)) for rows in (features, real_features)]
    statistics = [fid_features_to_statistics(rows) for rows in columns]
    return float(fid_statistics_to_metric(*statistics, verbose=False)[KEY_METRIC_FID])


class FrechetDistance(Metric):
    """The distance in the features of the extractor, and that of the pixels of small images.

    ``frechet_distance`` is there if there is an extractor, and ``pixel_frechet_distance`` for
    samples of at most 1024 numbers.
    """

    def __call__(self, evaluation: Evaluation) -> dict[str, float]:
        """Computes ``frechet_distance`` and ``pixel_frechet_distance``.

        Raises:
            ValueError: If there is neither an extractor nor a small image.
        """
        is_small = math.prod(evaluation.samples.shape[1:]) <= MAX_PIXELS
        values = {}
        if evaluation.extractor is not None or not is_small:
            values["frechet_distance"] = frechet_distance(
                evaluation.sample_features, evaluation.real_features
            )
        if is_small:
            real, _ = evaluation.real_images(MAX_REAL)
            values["pixel_frechet_distance"] = frechet_distance(
                evaluation.samples.flatten(1), real.flatten(1)
            )
        return values
