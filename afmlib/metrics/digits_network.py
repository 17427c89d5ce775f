"""A small convolutional classifier of digits, and its reproducible training.

Training uses float64 and smooth activations, so that rounding errors hardly grow. Its weights are
then rounded more coarsely than machines differ. The result is almost always the same network on
every machine. Random numbers come from its own generators.
"""

__all__ = ["RECIPE", "digits_network", "train_digits_network"]

import math
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from afmlib.io.digits_archive import read_digits

RECIPE = 1
"""Increased by any change of this file that changes the weights."""

NUM_FEATURES = 64
NUM_EPOCHS = 30
BATCH_SIZE = 32
MAX_LR = 0.1
NOISE = 0.4
"""The std of the noise on training images, which improves generalization."""

GRID = 2**10
"""Weights are rounded to multiples of the inverse."""


def digits_network() -> nn.Sequential:
    """Builds the network without weights: 64 ``features`` and a linear ``head``."""
    with torch.device("meta"):  # Without random numbers.
        features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.SiLU(),
            nn.AvgPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.SiLU(),
            nn.Flatten(),
            nn.Linear(32 * 4 * 4, NUM_FEATURES),
            nn.SiLU(),
        )
        return nn.Sequential(OrderedDict(features=features, head=nn.Linear(NUM_FEATURES, 10)))


def train_digits_network() -> dict[str, Tensor]:
    """Trains the network on the training digits, in about three seconds.

    Returns:
        Its weights, and ``scale``, the std of the features on the training images (the root of
        their mean variance).
    """
    with torch.inference_mode(False), torch.enable_grad(), _one_thread():
        images, labels = read_digits().part("train")
        images = images.double()
        generator = torch.Generator().manual_seed(0)
        network = _initialize(digits_network(), generator)
        _train(network, images, labels, generator)
        network.requires_grad_(False)
        for parameter in network.parameters():
            parameter.copy_(_round(parameter))
        scale = _round(network[0](images).var(0).mean().sqrt())
    return {name: tensor.float() for name, tensor in network.state_dict().items()} | {
        "scale": scale.float()
    }


def _round(values: Tensor) -> Tensor:
    return (values * GRID).round() / GRID


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # Sums have the same order on every machine.
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _initialize(network: nn.Sequential, generator: torch.Generator) -> nn.Sequential:
    network = network.to_empty(device="cpu").double()
    for parameter in network.parameters():
        if parameter.ndim > 1:
            nn.init.kaiming_uniform_(parameter, a=math.sqrt(5), generator=generator)
        else:
            nn.init.zeros_(parameter)
    return network


def _train(
    network: nn.Sequential, images: Tensor, labels: Tensor, generator: torch.Generator
) -> None:
    optimizer = torch.optim.SGD(
        network.parameters(), momentum=0.9, nesterov=True, weight_decay=1e-3
    )
    per_epoch = len(images) // BATCH_SIZE
    for step in range(NUM_EPOCHS * per_epoch):
        if step % per_epoch == 0:
            order = torch.randperm(len(images), generator=generator)
        rows = order[step % per_epoch * BATCH_SIZE :][:BATCH_SIZE]
        noises = torch.randn(images[rows].shape, generator=generator, dtype=images.dtype)
        loss = cross_entropy(network(images[rows] + NOISE * noises), labels[rows])
        progress = step / (NUM_EPOCHS * per_epoch)
        optimizer.param_groups[0]["lr"] = MAX_LR * math.sin(math.pi * progress)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
