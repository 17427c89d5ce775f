"""A small evaluation, and how it dies; run in the tests by itself, and by torchrun.

By torchrun it goes on with what is in a folder, and evaluates anew.
"""

import json
import os
import signal
import sys

import torch
from torch import nn

from afmlib import processes
from afmlib.config import EvaluationConfig
from afmlib.data.digits import Digits
from afmlib.engine import join_processes, leave_processes
from afmlib.evaluation import evaluate_model
from afmlib.interfaces import (
    Autoencoder,
    Conventions,
    Dataset,
    FeatureExtractor,
    Generator,
    SampleModel,
)
from afmlib.parameterizations import SamplePrediction
from afmlib.registry import AUTOENCODERS, EXTRACTORS

NUM_SAMPLES = 43
METRICS = [
    "FrechetDistance",
    "SpatialFrechetDistance",
    {"type": "InceptionScore", "splits": 2},
    {"type": "KernelDistance", "subsets": 3, "subset_size": 20},
    "PrecisionRecall",
    "Diversity",
]


@EXTRACTORS.register_module()
class Projection(FeatureExtractor):
    """Random projections of the pixels, the same in each process."""

    name = "projection"
    outputs = frozenset({"features", "spatial", "logits"})
    seen = 0

    def __init__(self):
        super().__init__()
        weights = torch.randn(3, 64, 5, generator=torch.Generator().manual_seed(0)) / 8
        self.weights = nn.Parameter(weights)

    def forward(self, images):
        return self.extract(images)["features"]

    def extract(self, images):
        self.seen += len(images)
        features, spatial, logits = (images.flatten(1) @ matrix for matrix in self.weights)
        return {"features": features.tanh(), "spatial": spatial, "logits": logits}


class Painter(Generator):
    """Noise, moved by the label; counts images, and dies at a given one."""

    latent_shape = (1, 8, 8)
    num_classes = 10

    def __init__(self, dies_after=None):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.5))
        self._dies_after = dies_after
        self.made = 0

    def forward(self, latents, labels, timesteps_src=None, timesteps_tgt=None):
        self.made += len(latents)
        if self._dies_after is not None and self.made > self._dies_after:
            os.kill(os.getpid(), signal.SIGKILL)
        return (self.scale * latents + (labels / 10 - 0.5)[:, None, None, None]).tanh()


@AUTOENCODERS.register_module()
class Halving(Autoencoder):
    """Images that are half their latents, each pixel four times; counts the most at once."""

    def __init__(self, latent_scale=2.0):
        super().__init__()
        self.latent_scale = latent_scale
        self.most = 0

    def encode(self, images, generator=None):
        return self.latent_scale * images[..., ::2, ::2]

    def decode(self, latents):
        self.most = max(self.most, len(latents))
        images = latents / self.latent_scale
        return images.repeat_interleave(2, -1).repeat_interleave(2, -2)


class TensorData(Dataset):
    def __init__(self, latents, labels):
        self.latents, self.labels = latents, labels
        self.latent_shape = tuple(latents.shape[1:])
        self.num_classes = int(labels.max()) + 1
        self.class_names = [str(label) for label in range(self.num_classes)]

    def __len__(self):
        return len(self.latents)

    def __getitems__(self, indices):
        return self.latents[list(indices)], self.labels[list(indices)]

    def augment(self, stored, draws):
        return stored


def model(dies_after=None, latent_scale=1.0):
    conventions = Conventions(
        objective="AdversarialFlow",
        parameterization="SamplePrediction",
        nfe=1,
        any_nfe=True,
        num_classes=10,
        latent_shape=(1, 8, 8),
        latent_scale=latent_scale,
    )
    return SampleModel(Painter(dies_after).eval(), SamplePrediction(), conventions)


def config(**options):
    usual = dict(extractor="Projection", metrics=METRICS, num_samples=NUM_SAMPLES, batch_size=4)
    return EvaluationConfig(**usual | options)


def evaluate(work_dir=None, resume=False, dies_after=None, **options):
    return evaluate_model(
        model(dies_after), Digits(), config(**options), work_dir=work_dir, resume=resume
    )


def fail_in_one(part, device, rows):
    if part.start:
        raise ValueError("this process fails")
    return rows[part.start : part.stop]


if __name__ == "__main__":
    (folder,) = sys.argv[1:]
    device = join_processes("cpu")
    results = {"resumed": evaluate(folder, resume=True), "anew": evaluate()}
    if processes.rank():
        processes.follow(device)
    else:
        with processes.leading():
            try:
                processes.share(fail_in_one, 4, [torch.zeros(4)], device)
            except RuntimeError as error:
                results["failed"] = str(error)
    if processes.rank() == 0:
        with open(f"{folder}/results.json", "w") as file:
            json.dump(results, file)
    leave_processes()
