"""Features of small images, from a classifier of the data set that is trained at first use."""

__all__ = ["ClassifierExtractor"]

import math
from collections import OrderedDict
from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from afmlib.interfaces import Dataset, FeatureExtractor
from afmlib.io.content_hash import content_hash
from afmlib.io.trained_weights import hash_of, trained_weights
from afmlib.metrics.extraction import read_images
from afmlib.typing import Labels

RECIPE = 2
"""Increased by any change of this file that changes the weights."""

NUM_FEATURES = 64
NUM_CHANNELS = 8
"""Channels of the last feature map that are compared as ``spatial``."""

MAX_IMAGES = 20_000
BATCH_SIZE = 64
MAX_LR = 2e-3
GROUPS = 8
NOISE = 0.3
"""The std of the noise on training images, which improves generalization."""

SHIFTS = 16
"""Training images are shifted by at most this fraction of their side."""


class ClassifierExtractor(FeatureExtractor):
    """64 features of small images, with a mean variance of one on the training images.

    ``spatial`` are the first 8 channels of the last feature map. ``logits`` are those of the
    classes.

    The network classifies the images of a data set, and is trained on its training part, in half a
    minute of a CPU core for gray images of 32 pixels. Its weights are cached in the folder
    ``AFMLIB_CACHE`` (an environment variable, by default ``~/.cache/afmlib``) by the content of the
    images. It is meant for images of 16 to 64 pixels.

    Args:
        images: The data, with two classes or more.
        num_steps: The number of training steps with 64 images each.

    Raises:
        ValueError: If the samples are not images, or have only one class.
    """

    scale: Tensor
    outputs = frozenset({"features", "spatial", "logits"})

    def __init__(self, images: Dataset, num_steps: int = 1500) -> None:
        super().__init__()
        self.shape = tuple(images.latent_shape)
        if len(self.shape) != 3 or images.num_classes < 2 or min(self.shape[1:]) < 8:
            raise ValueError(
                "ClassifierExtractor needs images of at least 8 pixels and two classes, got "
                f"{type(images).__name__} of shape {self.shape} and {images.num_classes} classes: "
                "use EfficientNetLiteExtractor."
            )
        if num_steps < 1:
            raise ValueError(f"num_steps must be at least 1, got {num_steps}.")
        network = _network(self.shape, images.num_classes)
        pixels, labels = _read(images)
        classes = content_hash({"labels": labels})
        data = hash_of(pixels, {"labels": classes, "num_steps": num_steps, "recipe": RECIPE})
        weights = trained_weights(
            f"classifier-extractor-{data}",
            f"a classifier on {len(labels)} images, for evaluations",
            lambda steps: _train(network, pixels, labels, steps(num_steps), num_steps),
        )
        self.name = f"classifier-{content_hash(weights)}"
        self.register_buffer("scale", weights.pop("scale"))
        self.network = network
        self.network.load_state_dict(weights, assign=True)
        self.requires_grad_(False).eval()

    def check_shape(self, shape: Sequence[int]) -> None:
        """Raises if an image has another shape than the training images."""
        if tuple(shape) != self.shape:
            raise ValueError(
                f"this ClassifierExtractor is for images of shape {self.shape}, got {tuple(shape)}"
            )

    def forward(self, images: Float[Tensor, " batch channels height width"]) -> Tensor:
        """Returns 64 features per image, which is clipped to [-1, 1].

        Raises:
            ValueError: If the images have another shape than the training images.
        """
        return self.extract(images)["features"]

    def extract(self, images: Float[Tensor, " batch channels height width"]) -> dict[str, Tensor]:
        """Returns features, numbers of a feature map, and logits of each image.

        Raises:
            ValueError: If the images have another shape than the training images.
        """
        self.check_shape(images.shape[1:])
        maps = self.network[0](images.to(self.scale.dtype).clamp(-1, 1))
        features = self.network[1](maps)
        return {
            "features": features / self.scale,
            "spatial": maps[:, :NUM_CHANNELS].flatten(1),
            "logits": self.network[2](features),
        }


def _network(shape: Sequence[int], num_classes: int) -> nn.Sequential:
    """Builds the network without weights: ``maps``, 64 ``features`` and a linear ``head``."""
    channels, height, width = shape
    with torch.device("meta"):  # Without random numbers.
        maps = nn.Sequential(
            nn.Conv2d(channels, 16, 3, padding=1),
            nn.GroupNorm(GROUPS, 16),
            nn.SiLU(),
            nn.AvgPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.GroupNorm(GROUPS, 32),
            nn.SiLU(),
            nn.AvgPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.GroupNorm(GROUPS, 64),
            nn.SiLU(),
            nn.AvgPool2d(2),
        )
        rows = nn.Linear(64 * (height // 8) * (width // 8), NUM_FEATURES)
        features = nn.Sequential(nn.Flatten(), rows, nn.SiLU())
        head = nn.Linear(NUM_FEATURES, num_classes)
        return nn.Sequential(OrderedDict(maps=maps, features=features, head=head))


def _read(images: Dataset) -> tuple[Tensor, Labels]:
    """Returns plain training images as uint8 and their labels; of many images a fixed choice."""
    pixels, labels = [], []
    for some, classes in read_images(images, 256, MAX_IMAGES):
        pixels.append(((some + 1) * 127.5).round().clamp(0, 255).byte())
        labels.append(classes)
    return torch.cat(pixels), torch.cat(labels)


def _train(
    network: nn.Sequential,
    pixels: Tensor,
    labels: Labels,
    steps: Iterable[int],
    num_steps: int,
) -> dict[str, Tensor]:
    """Trains the network.

    Returns:
        Its weights, and ``scale``, the std of the features on the training images (the root of
        their mean variance).
    """
    generator = torch.Generator().manual_seed(0)
    network = network.to_empty(device="cpu")
    for name, parameter in network.named_parameters():
        if parameter.ndim > 1:
            nn.init.kaiming_uniform_(parameter, a=math.sqrt(5), generator=generator)
        else:  # The scales of the normalization are the other weights.
            nn.init.constant_(parameter, 1.0 if name.endswith("weight") else 0.0)
    optimizer = torch.optim.AdamW(network.parameters(), lr=MAX_LR, weight_decay=0.05)
    batch = min(BATCH_SIZE, len(pixels))
    per_epoch = len(pixels) // batch
    reach = min(pixels.shape[2:]) // SHIFTS
    for step in steps:
        if step % per_epoch == 0:
            order = torch.randperm(len(pixels), generator=generator)
        rows = order[step % per_epoch * batch :][:batch]
        images = pixels[rows].float() / 127.5 - 1
        shift = torch.randint(-reach, reach + 1, (2,), generator=generator).tolist()
        images = images.roll(shift, (2, 3))
        images = images + NOISE * torch.randn(images.shape, generator=generator)
        loss = cross_entropy(network(images), labels[rows])
        optimizer.param_groups[0]["lr"] = MAX_LR * math.sin(math.pi * (step + 0.5) / num_steps)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
    network.requires_grad_(False)
    features = [network[:2](part.float() / 127.5 - 1) for part in torch.split(pixels, 256)]
    weights = dict(network.state_dict())
    return weights | {"scale": torch.cat(features).var(0).mean().sqrt()}
