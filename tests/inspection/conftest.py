"""Models whose samples are known, and pictures taken apart, for the tests of the pictures."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from afmlib.evaluation.pictures import GAP, MIN_TILE
from afmlib.interfaces import Conventions, Generator, SampleModel
from afmlib.parameterizations import SamplePrediction


class Halfway(Generator):
    """Halves its input and adds a hundredth of the label, so equal noises give equal samples."""

    def __init__(self, latent_shape, num_classes):
        super().__init__()
        self.latent_shape, self.num_classes = latent_shape, num_classes
        self.gain = nn.Parameter(torch.tensor(0.5))

    def forward(self, latents, labels, timesteps_src=None, timesteps_tgt=None):
        return self.gain * latents + 0.01 * labels.reshape(-1, *[1] * (latents.ndim - 1))


@pytest.fixture(scope="session")
def halfway():
    """Makes a model that halves its noises, once per evaluation."""

    def make(latent_shape=(1, 8, 8), num_classes=10, nfe=1, any_nfe=True):
        conventions = Conventions(
            "AdversarialFlow",
            "SamplePrediction",
            nfe,
            any_nfe,
            num_classes=num_classes,
            latent_shape=latent_shape,
        )
        return SampleModel(Halfway(latent_shape, num_classes), SamplePrediction(), conventions)

    return make


@pytest.fixture(scope="session")
def tile_of():
    """Cuts the image at a row and a column out of a picture, at its own size."""

    def cut(picture, row, column, size=8, top=0):
        if isinstance(picture, bytes):
            picture = np.asarray(Image.open(io.BytesIO(picture)))
        factor = max(1, -(-MIN_TILE // size))
        gap, tile = GAP * factor, size * factor
        y = top + gap + row * (tile + gap)
        x = gap + column * (tile + gap)
        return picture[y : y + tile : factor, x : x + tile : factor].transpose(2, 0, 1)

    return cut
