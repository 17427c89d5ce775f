"""Features of samples that a loss is computed in, with a gradient."""

__all__ = ["feature_sizes", "features_of"]

import itertools
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from afmlib.interfaces import FeatureExtractor
from afmlib.typing import Latents


def feature_sizes(
    extractors: Sequence[FeatureExtractor], shape: Sequence[int], network: nn.Module
) -> list[int]:
    """Freezes extractors, and returns how many features each one has.

    They go to the device of the network. Without extractors, samples are their own features.

    Raises:
        ValueError: If an extractor does not fit the samples, or its features have no gradient.
    """
    if not extractors:
        return [torch.Size(shape).numel()]
    sizes = []
    for extractor in extractors:
        name = type(extractor).__name__
        extractor.check_shape(shape)
        extractor.requires_grad_(False).eval()
        tensors = itertools.chain(extractor.parameters(), extractor.buffers())
        device = next((tensor.device for tensor in tensors), torch.device("cpu"))
        images = torch.zeros(1, *shape, device=device).requires_grad_()
        with torch.enable_grad():
            features = extractor(images)
        if not features.requires_grad:
            raise ValueError(
                f"{name} has no gradient, since its network takes bytes: use another extractor, "
                "such as TimmExtractor or ClassifierExtractor."
            )
        sizes.append(features.shape[1])
        extractor.to(next(network.parameters()).device)
    return sizes


def features_of(extractors: Iterable[nn.Module], samples: Latents) -> list[Tensor]:
    """Returns the features of samples in each extractor, without autocast."""
    extractors, device = list(extractors), samples.device.type
    if not extractors:
        return [samples.flatten(1)]
    if device == "meta":
        return [extractor.eval()(samples) for extractor in extractors]
    with torch.autocast(device, enabled=False):
        samples = samples.to(torch.promote_types(samples.dtype, torch.float32))
        return [extractor.eval()(samples) for extractor in extractors]
