r"""Features of the Inception network in which FID, sFID and the Inception score are defined.

One pass gives three things, named as in torch-fidelity and, in brackets, in the TensorFlow graph of
2015-12-05 that the ADM evaluation suite runs:

* ``features``: ``2048`` [``pool_3``], the pooled features of FID, precision and recall;
* ``logits``: ``logits_unbiased`` [``softmax/logits/MatMul``], without the bias, which neither
  adds, for the Inception score;
* ``spatial``: channels 0 to 6 of the first branch of ``Mixed_6d`` [``mixed_6/conv``], after its
  ReLU: a convolution of :math:`1 \times 1` on the :math:`17 \times 17` map. The graph counts from
  ``mixed`` = ``Mixed_5b``, so that ``mixed_6`` is ``Mixed_6d`` and not ``Mixed_6e``. A row is in
  the order of TensorFlow, (height, width, channel), :math:`17 \cdot 17 \cdot 7 = 2023` numbers, so
  that ``mu_s`` and ``sigma_s`` of ADM's files fit.

The tests use random weights. They do not compare the numbers with those of the TensorFlow graph.

References:
    | GANs Trained by a Two Time-Scale Update Rule (Heusel et al., 2017)
    | https://arxiv.org/abs/1706.08500

    | High-fidelity performance metrics for generative models in PyTorch (Obukhov et al., 2020)
    | https://github.com/toshas/torch-fidelity

    | Diffusion Models Beat GANs on Image Synthesis (Dhariwal and Nichol, 2021), for the suite
    | https://github.com/openai/guided-diffusion/tree/main/evaluations

    | Generating Images with Sparse Representations (Nash et al., 2021), for sFID
    | https://arxiv.org/abs/2103.03841
"""

__all__ = ["INCEPTION", "InceptionExtractor"]

import hashlib
import os
import tempfile
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from afmlib.interfaces import FeatureExtractor
from afmlib.io import storage
from afmlib.metrics.rgb import check_rgb, to_rgb_bytes

SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
"""The hash of the official weights, converted from the TensorFlow network of 2015-12-05."""

INCEPTION = "inception-2015-12-05"
"""The prefix of the names of these features. Files of ADM do not name it."""

NUM_FEATURES = "2048"
LOGITS = "logits_unbiased"
NUM_CHANNELS = 7
"""Channels of the feature map that sFID compares."""


class InceptionExtractor(FeatureExtractor):
    """The 2048 pooled features of Inception, by torch-fidelity, resizing included.

    Args:
        weights_path: The path or URL of ``weights-inception-2015-12-05-6726825d.pth``, which is
            also known as ``pt_inception-2015-12-05-6726825d.pth``. Defaults to a download into the
            cache of ``torch.hub``.

    Raises:
        ValueError: If it is another file. It is not loaded, since unpickling can run code.
        FileNotFoundError: If it cannot be downloaded. The message says where to get it.
        OSError: If it cannot be read.
    """

    outputs = frozenset({"features", "spatial", "logits"})

    def __init__(self, weights_path: str | None = None) -> None:
        super().__init__()
        self.network = _create(_download() if weights_path is None else str(weights_path))
        self.name = f"{INCEPTION}-{NUM_FEATURES}-{SHA256[:16]}"
        self.requires_grad_(False).eval()

    def check_shape(self, shape: Sequence[int]) -> None:
        """Raises if an image is not gray or RGB."""
        check_rgb(shape)

    def forward(self, images: Float[Tensor, " batch channels height width"]) -> Tensor:
        """Returns 2048 features per image, which is rounded to 0 ... 255 as in a file."""
        return self.extract(images)["features"]

    def extract(self, images: Float[Tensor, " batch channels height width"]) -> dict[str, Tensor]:
        """Returns 2048 features, 2023 numbers of a feature map and 1008 logits per image."""
        maps: list[Tensor] = []
        hook = self.network.Mixed_6d.branch1x1.register_forward_hook(
            lambda module, inputs, output: maps.append(output[:, :NUM_CHANNELS])
        )
        try:
            features, logits = self.network(to_rgb_bytes(images))
        finally:
            hook.remove()
        spatial = maps[0].permute(0, 2, 3, 1).flatten(1)  # (N, 17 x 17 x 7)
        return {"features": features, "spatial": spatial, "logits": logits}


def _create(path: str) -> Any:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    content = storage.read_bytes(path)
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256:
        raise ValueError(
            f"{path} is not the official Inception network and is not loaded: its SHA-256 is "
            f"{found}, not {SHA256}."
        )
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]):
        copy = os.path.join(folder, "inception.pth")  # What was checked is what is loaded.
        with open(copy, "wb") as file:
            file.write(content)
        return FeatureExtractorInceptionV3(
            "inception-v3-compat", [NUM_FEATURES, LOGITS], feature_extractor_weights_path=copy
        )


def _download() -> str:
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    path = os.path.join(torch.hub.get_dir(), "checkpoints", os.path.basename(URL_INCEPTION_V3))
    if not os.path.exists(path):
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            torch.hub.download_url_to_file(URL_INCEPTION_V3, path, SHA256, progress=False)
        except (OSError, RuntimeError) as error:  # Offline, or another file.
            raise FileNotFoundError(
                f"the weights of Inception are not at {path} and cannot be downloaded ({error}). "
                f"Download {URL_INCEPTION_V3} elsewhere, and set evaluation.extractor to "
                "{type: InceptionExtractor, weights_path: PATH}."
            ) from error
    return path
