"""Image files: listing, decoding, resizing, and the pixels that training sees.

References:
    | The resizing of guided diffusion (Dhariwal and Nichol, 2021), which DiT and AFM use
    | https://github.com/openai/guided-diffusion/blob/main/guided_diffusion/image_datasets.py
"""

__all__ = [
    "EXTENSIONS",
    "FileListing",
    "check_flip_probability",
    "decode",
    "list_files",
    "scale_and_mirror",
    "shrink_and_crop",
    "verify",
]

import io
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from afmlib.io import storage
from afmlib.io.bounds import memory_shortage
from afmlib.io.file_systems import reaching
from afmlib.typing import Latents

EXTENSIONS = (
    ".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp",
)  # fmt: skip


@dataclass(frozen=True)
class FileListing:
    """The content of a folder, by relative paths, without hidden files and folders."""

    images: list[str]
    """The files with the extension of an image, sorted."""

    others: list[str]
    """The other files, sorted."""

    folders: list[str]
    """The folders directly in it, sorted."""


def list_files(path: str) -> FileListing:
    """Lists a folder recursively.

    Raises:
        FileNotFoundError: If the folder does not exist.
        NotADirectoryError: If it is a file.
        OSError: If it, or a folder in it, cannot be read.
        ValueError: If the protocol of the URL is unknown.
    """
    if not storage.exists(path):
        raise FileNotFoundError(f"There is no folder {path}.")
    # By default, a local folder without read permission looks empty.
    strict = {"on_error": "raise"} if storage.is_local(path) else {}
    with reaching(path) as (fs, root):
        if not fs.isdir(root):
            raise NotADirectoryError(f"{path} is a file; a folder of images is needed.")
        entries = fs.find(root, withdirs=True, detail=True, **strict)
    names: dict[str, list[str]] = {"file": [], "directory": []}
    for name, entry in sorted(entries.items()):
        relative = name[len(root) :].strip("/")
        if relative and not any(part.startswith(".") for part in relative.split("/")):
            names["directory" if entry["type"] == "directory" else "file"].append(relative)
    is_image = [name.lower().endswith(EXTENSIONS) for name in names["file"]]
    return FileListing(
        images=[name for name, yes in zip(names["file"], is_image, strict=True) if yes],
        others=[name for name, yes in zip(names["file"], is_image, strict=True) if not yes],
        folders=[name for name in names["directory"] if "/" not in name],
    )


def decode(content: bytes, size: int, channels: int) -> Tensor:
    """Decodes an image file to uint8 of shape (channels, size, size).

    The EXIF orientation is applied, transparent parts become white, and 16 bits become 8. Of an
    animation, the first image is used.

    Raises:
        OSError: If it is not an image, or is corrupt.
        ValueError: If its pixels are not colors.
    """
    with Image.open(io.BytesIO(content)) as opened:
        _check_memory(opened)
        image = ImageOps.exif_transpose(opened)
        image = _flatten(image, "L" if channels == 1 else "RGB")
    pixels = torch.from_numpy(np.array(shrink_and_crop(image, size)))
    return pixels.reshape(size, size, channels).permute(2, 0, 1)


def verify(content: bytes, size: int) -> None:
    """Reads an image file to its end, at the lowest sufficient resolution.

    Raises:
        OSError: If it is not an image, or is corrupt.
        ValueError: If its pixels are not colors.
    """
    with Image.open(io.BytesIO(content)) as image:
        image.draft(None, (size, size))  # Makes JPEG several times faster.
        _check_memory(image)
        _flatten(image, "RGB")


def _check_memory(image: Image.Image) -> None:
    """Checks the size that the header declares, before pixels are decoded."""
    # Up to three copies of four bytes per pixel, and eight threads that decode.
    if shortage := memory_shortage(8 * 3 * 4 * image.width * image.height):
        raise ValueError(f"it has {image.width} x {image.height} pixels, which {shortage}")


def _flatten(image: Image.Image, mode: str) -> Image.Image:
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers")
    if image.mode.startswith("I"):  # 16 bits; Pillow would clip them to 255.
        wide = np.clip(np.asarray(image).astype(np.int64) >> 8, 0, 255)
        image = Image.fromarray(wide.astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return image.convert(mode)


def shrink_and_crop(image: Image.Image, size: int) -> Image.Image:
    """Resizes the shorter side to ``size``, with antialiasing, and crops the center.

    It is halved by averaging as often as possible, and then resized by bicubic interpolation.
    """
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = size / min(image.size)
    resized = (round(image.width * scale), round(image.height * scale))
    if resized != image.size:
        image = image.resize(resized, Image.Resampling.BICUBIC)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))


def check_flip_probability(probability: float) -> None:
    """Checks a probability.

    Raises:
        ValueError: If it is outside of [0, 1].
    """
    if not 0 <= probability <= 1:
        raise ValueError(f"horizontal_flip_prob must be in [0, 1], got {probability}.")


def scale_and_mirror(stored: Tensor, draws: Tensor | None, probability: float) -> Latents:
    """Scales images to [-1, 1], and mirrors those whose draw is below the probability.

    Args:
        stored: Images, from 0 to 255.
        draws: A number in [0, 1) for each image; None to mirror none.
        probability: The probability that an image is mirrored.
    """
    if draws is not None:
        mirrored = (draws < probability).reshape(-1)
        if stored.device.type == "cpu":
            stored = stored.clone()
            stored[mirrored] = stored[mirrored].flip(-1)
        else:  # A boolean index would wait for the device.
            stored = torch.where(mirrored.reshape(-1, 1, 1, 1), stored.flip(-1), stored)
    return stored.to(torch.float32, copy=True).div_(127.5).sub_(1)
