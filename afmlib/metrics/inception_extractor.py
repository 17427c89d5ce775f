"""Features of the Inception network in which FID is defined.

References:
    | GANs Trained by a Two Time-Scale Update Rule (Heusel et al., 2017)
    | https://arxiv.org/abs/1706.08500

    | High-fidelity performance metrics for generative models in PyTorch (Obukhov et al., 2020)
    | https://github.com/toshas/torch-fidelity
"""

__all__ = ["InceptionExtractor"]

import hashlib
import os
import tempfile
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from afmlib.interfaces import FeatureExtractor
from afmlib.io import storage
from afmlib.metrics.rgb import to_rgb_bytes

SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
"""Of the published weights, converted from the TensorFlow network of 2015-12-05."""

NUM_FEATURES = "2048"


class InceptionExtractor(FeatureExtractor):
    """The 2048 pooled features of Inception, by torch-fidelity, resizing included.

    Args:
        weights_path: The file ``pt_inception-2015-12-05-6726825d.pth`` or
            ``weights-inception-2015-12-05-6726825d.pth``, which are the same: a path or a URL.
            Unless given, it is downloaded to the cache of ``torch.hub``.

    Raises:
        ValueError: If the file is another one. It would be unpickled, which can run code.
        OSError: If it cannot be read.
    """

    def __init__(self, weights_path: str | None = None) -> None:
        super().__init__()
        self.network = _create(_download() if weights_path is None else str(weights_path))
        self.name = f"inception-2015-12-05-{NUM_FEATURES}-{SHA256[:16]}"
        self.requires_grad_(False).eval()

    def forward(self, images: Float[Tensor, " batch channels height width"]) -> Tensor:
        """Returns 2048 features per image; images are rounded to 0 ... 255, as when saved."""
        (features,) = self.network(to_rgb_bytes(images))
        return features


def _create(path: str) -> Any:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    content = storage.read_bytes(path)
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256:
        raise ValueError(
            f"{path} is not the published Inception network: its SHA-256 is {found}, "
            f"not {SHA256}. It is not loaded."
        )
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]):
        copy = os.path.join(folder, "inception.pth")  # What was checked is what is loaded.
        with open(copy, "wb") as file:
            file.write(content)
        return FeatureExtractorInceptionV3(
            "inception-v3-compat", [NUM_FEATURES], feature_extractor_weights_path=copy
        )


def _download() -> str:
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    path = os.path.join(torch.hub.get_dir(), "checkpoints", os.path.basename(URL_INCEPTION_V3))
    if not os.path.exists(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        torch.hub.download_url_to_file(URL_INCEPTION_V3, path, hash_prefix=SHA256, progress=False)
    return path
