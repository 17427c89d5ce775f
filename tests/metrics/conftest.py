"""What the tests of the metrics share: one trained extractor, and pictures to judge."""

import pytest
import torch

from afmlib.data.digits import Digits
from afmlib.interfaces import Dataset, FeatureExtractor
from afmlib.metrics.digits_extractor import DigitsExtractor
from afmlib.metrics.evaluation import EvaluationData


@pytest.fixture(scope="session")
def digits_extractor(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AFMLIB_CACHE", str(tmp_path_factory.mktemp("cache")))
        return DigitsExtractor()


@pytest.fixture(scope="session")
def digits():
    return Digits()


@pytest.fixture
def judge(digits, digits_extractor):
    """Evaluates a metric on samples for digits."""

    def run(metric, samples, labels, **options):
        options = dict(dataset=digits, extractor=digits_extractor) | options
        return metric(EvaluationData(samples=samples, labels=labels, **options))

    return run


@pytest.fixture(scope="session")
def tensors():
    """Makes a data set of images that are given."""
    return TensorData


@pytest.fixture
def identity():
    return Identity()


class TensorData(Dataset):
    def __init__(self, images, labels=None):
        self.images = images
        self.labels = torch.zeros(len(images), dtype=torch.long) if labels is None else labels
        self.latent_shape = tuple(images.shape[1:])
        self.num_classes = int(self.labels.max()) + 1
        self.class_names = [str(label) for label in range(self.num_classes)]

    def __len__(self):
        return len(self.images)

    def __getitems__(self, indices):
        return self.images[list(indices)], self.labels[list(indices)]

    def augment(self, stored, draws):
        return stored


class Identity(FeatureExtractor):
    """The pixels themselves, and how often they were asked for."""

    name = "identity"
    calls = 0

    def forward(self, images):
        self.calls += 1
        return images.flatten(1)
