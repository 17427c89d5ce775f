"""Configs for your own images: a method, a folder and a size become a config.

The size chooses one of the shipped scales ``images32``, ``images64`` and ``images128``. The content
of the folder sets the channels, the batch, the number of samples and the features of evaluations.
The result is a plain config: saved to a file, it trains the same.
"""

__all__ = ["images_config"]

import importlib.util
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from afmlib.config.compose import load_config, load_method, load_scale, merge, override_texts
from afmlib.config.yaml_files import ConfigError
from afmlib.data.image_folder import ImageFolder
from afmlib.metrics.efficientnet_lite_extractor import PACKAGE
from afmlib.registry import build_dataset

SCALES = {28: "images32", 32: "images32", 64: "images64", 128: "images128"}
"""The size of the images in pixels -> the scale."""

REDUCTION = 8
"""The ratio of the sides of an image and of its code."""

MAX_TOKENS = 256
"""The most tokens of an image that a CPU trains in hours."""

NUM_LOOKED_AT = 500
"""The number of images that decide whether a folder is gray."""

GRAY = 8
"""The largest difference between the colors of a gray pixel, of 255: that of compression."""

NUM_NAMED = 5
"""The number of classes that a message names."""

NEIGHBORS = 10
"""The number of images from which precision and recall are measured."""

logger = logging.getLogger("afmlib")


def images_config(
    method: str,
    folder: str | Path,
    size: int | None = None,
    overrides: Mapping[str, Any] | Iterable[str] = (),
    plugins: Iterable[str | Path] = (),
) -> dict[str, Any]:
    """Composes a config for a folder of images, and logs a summary of the folder.

    Args:
        method: A shipped method such as ``afm``.
        folder: The images, with one sub-folder per class or none: a path or a URL.
        size: The side to which they are resized: 28, 32, 64 or 128 pixels. Defaults to 32.
        overrides: As in `load_config`. They take precedence.
        plugins: Plugin files.

    Returns:
        The config as plain data, composed but not yet checked.

    Raises:
        ConfigError: If there is no such method or size, or an override is wrong.
        OSError: If the folder is missing or cannot be read.
        ValueError: If the folder holds no images or unreadable ones.
    """
    size = 32 if size is None else size
    if size not in SCALES:
        near = min(SCALES, key=lambda known: abs(known - size))
        raise ConfigError(
            f"The size must be one of {', '.join(map(str, SCALES))}, got {size}. Images are "
            f"resized, so {near} works. For other sizes, write a config."
        )
    over = load_method(method)
    scale = load_scale(SCALES[size])
    assert scale is not None
    texts = override_texts(overrides)
    plugins = list(plugins)
    base = _with_images(scale, {"path": str(folder), "size": size})
    of_data = [text for text in texts if text.strip().startswith(("data", "plugins"))]
    spec = _images(load_config(base, of_data, plugins))
    if spec.get("type") != "ImageFolder":
        raise ConfigError(f"A folder of images is an ImageFolder, got {spec.get('type')}.")
    images = build_dataset({**spec, "channels": 3})
    assert isinstance(images, ImageFolder)
    channels = spec.get("channels") or (1 if _is_gray(images) else 3)
    base = merge(_with_images(base, {"channels": channels}), _settings(base, images))
    config = load_config(merge(base, over), texts, plugins)
    extractor = config.get("evaluation", {}).get("extractor")
    if isinstance(extractor, Mapping) and "images" in extractor:  # With the user's settings.
        extractor["images"] = _images(config)  # type: ignore[index]
    _report(images, channels, SCALES[size], config)
    return config


def _images(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the spec of the images, which may be inside that of their latents."""
    data = config["data"]
    return dict(data.get("images", data))


def _with_images(config: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a config with arguments of the images, and those of its autoencoder that follow."""
    if "autoencoder" not in config["data"]:
        return merge(config, {"data": arguments})
    follow = {"size": "size", "channels": "in_channels"}
    autoencoder = {follow[name]: value for name, value in arguments.items() if name in follow}
    return merge(config, {"data": {"images": arguments, "autoencoder": autoencoder}})


def _is_gray(images: ImageFolder) -> bool:
    rows = range(0, len(images), max(len(images) // NUM_LOOKED_AT, 1))
    colors, _ = images.__getitems__(rows)
    return int((colors.amax(1) - colors.amin(1)).max()) <= GRAY


def _settings(config: Mapping[str, Any], images: ImageFolder) -> dict[str, Any]:
    """Returns the settings that the number of images and classes determines."""
    held_out = images.held_out()
    num_real = len(images if held_out is None else held_out)
    num_samples = min(config["evaluation"]["num_samples"], num_real)
    metrics = list(config["evaluation"]["metrics"])
    extractor: Any = config["evaluation"]["extractor"]
    if importlib.util.find_spec(PACKAGE) is None:
        extractor = {"type": "ClassifierExtractor", "images": _images(config)}
        if images.num_classes == 1:  # A classifier needs two.
            extractor, metrics = None, ["Diversity", "NearestTrainingImage"]
    if images.num_classes == 1 and "ClassAccuracy" in metrics:
        metrics.remove("ClassAccuracy")
    if num_real < NEIGHBORS and "PrecisionRecall" in metrics:
        metrics.remove("PrecisionRecall")
    return {
        "global_batch": min(config["global_batch"], 2 ** (len(images).bit_length() - 1)),
        "evaluation": {
            "extractor": extractor,
            # Two samples of a class are the fewest that have a diversity.
            "num_samples": max(num_samples, images.num_classes + 1, NEIGHBORS),
            "metrics": metrics,
        },
    }


def _report(images: ImageFolder, channels: int, scale: str, config: Mapping[str, Any]) -> None:
    counts = images.labels.bincount(minlength=images.num_classes).tolist()
    named = [f"{name} {count}" for name, count in zip(images.class_names, counts, strict=True)]
    more = f" and {len(named) - NUM_NAMED} more" if len(named) > NUM_NAMED else ""
    logger.info(
        "%s: %d %s images, %s.",
        *(images.path, len(images), {1: "gray", 3: "color"}[channels]),
        "one class"
        if len(named) == 1
        else f"{len(named)} classes: {', '.join(named[:NUM_NAMED])}{more}",
    )
    is_latent = config["data"].get("type") == "LatentImages"
    size = _images(config)["size"]
    side = -(-size // REDUCTION) if is_latent else size
    patch = _patch_size(config["objective"].get("generator"))
    tokens = f", {(side // patch) ** 2} tokens per image" if patch else ""
    through = "through a small autoencoder" if is_latent else "without an autoencoder"
    logger.info("Scale %s: %dx%d pixels, %s%s.", scale, size, size, through, tokens)
    if patch and (side // patch) ** 2 > MAX_TOKENS:
        enough = next(p for p in range(1, side + 1) if side % p == 0 and side // p <= 16)
        logger.warning(
            "%d tokens per image take a CPU days: set patch_size of the networks, such as "
            "objective.generator.patch_size, to %d for %d tokens.",
            *((side // patch) ** 2, enough, (side // enough) ** 2),
        )
    key, on = ("mirror", "true") if is_latent else ("horizontal_flip_prob", "0.5")
    if not config["data"].get(key):
        logger.info("Images are not mirrored. For photos, add --set data.%s=%s.", key, on)


def _patch_size(generator: Any) -> int | None:
    """Returns the patch size of a transformer, which may be wrapped; None for other networks."""
    if not isinstance(generator, Mapping):
        return None
    if isinstance(generator.get("generator"), Mapping):
        return _patch_size(generator["generator"])
    return generator.get("patch_size")
