"""Tests for afmlib.testing.metrics: broken extractors and metrics are noticed and named."""

from typing import ClassVar

import numpy as np
import pytest
import torch

from afmlib.interfaces import FeatureExtractor, Metric, Number
from afmlib.testing import check_feature_extractor, check_metric


class Means(FeatureExtractor):
    name = "means"

    def forward(self, images):
        return images.mean((2, 3))


class Nameless(Means):
    name = ""


class RefusesTheShape(Means):
    def check_shape(self, shape):
        raise ValueError("too small")


class Pictures(Means):
    def forward(self, images):
        return images


class Noisy(Means):
    def forward(self, images):
        return super().forward(images) + torch.rand(3)


class Whitened(Means):
    def forward(self, images):
        rows = super().forward(images)
        return rows - rows.mean(0)


class Blind(Means):
    def forward(self, images):
        return torch.ones(len(images), 2)


class NotFinite(Means):
    def forward(self, images):
        return super().forward(images).log()


class Promises(Means):
    outputs = frozenset({"features", "logits"})


class Invents(Means):
    outputs = frozenset({"features", "colors"})


class Disagrees(Means):
    def extract(self, images):
        return {"features": self(images) + 1}


class FlatLogits(Promises):
    def extract(self, images):
        return {"features": self(images), "logits": self(images).sum(1)}


@pytest.mark.parametrize(
    ("broken", "contract"),
    [
        (Promises, "that `outputs` declares, .*; it returned features"),
        (Invents, "that `outputs` declares, .*; outputs is .'colors', 'features'."),
        (Disagrees, "`extract` and `forward` agree"),
        (FlatLogits, "logits are one finite row per image"),
        (RefusesTheShape, "check_shape accepts the images .* too small"),
        (Nameless, "has a name that identifies its features"),
        (Pictures, "one row of features per image"),
        (Noisy, "the same each time"),
        (Whitened, "do not depend on the others"),
        (Blind, "the features of different images differ"),
        (NotFinite, "features are finite"),
    ],
)
def test_broken_extractor_is_named(broken, contract):
    check_feature_extractor(Means())
    with pytest.raises(AssertionError, match=f"^{broken.__name__}: .*{contract}"):
        check_feature_extractor(broken())


class Half(Metric):
    numbers: ClassVar = {"number": Number("a number")}
    value = 0.5

    def __call__(self, evaluation):
        return {"number": self.value}


class Bare(Half):
    def __call__(self, evaluation):
        return self.value


class GivesTensors(Half):
    value = torch.tensor(0.5)


class GivesArrays(Half):
    value = np.float64(0.5)


class NotANumber(Half):
    value = float("nan")


class Draws(Half):
    def __call__(self, evaluation):
        return {"number": torch.rand(()).item()}


class Counts(Half):
    def __call__(self, evaluation):
        self.value += 1
        return super().__call__(evaluation)


class Misnames(Half):
    distances = frozenset({"nummer"})


class DistanceThatIsNotLower(Half):
    distances = frozenset({"number"})


class Undescribed(Half):
    numbers: ClassVar = {"nummer": Number("another number")}


@pytest.mark.parametrize(
    ("broken", "contract"),
    [
        (Misnames, "`distances` are names in `numbers` .*'nummer'"),
        (DistanceThatIsNotLower, "`distances` are names in `numbers` .*'number'"),
        (Undescribed, "`numbers` describes every number; 'number' is missing"),
        (Bare, "finite floats by name; 0.5"),
        (GivesTensors, "finite floats by name; 'number' is tensor"),
        (GivesArrays, "finite floats by name; 'number' is np.float64"),
        (NotANumber, "finite floats by name; 'number' is nan"),
        (Draws, "the same numbers .* the global random state"),
        (Counts, "the same numbers for the same evaluation; they are"),
    ],
)
def test_broken_metric_is_named(broken, contract):
    check_metric(Half(), None)
    with pytest.raises(AssertionError, match=f"^{broken.__name__}: .*{contract}"):
        check_metric(broken(), None)
