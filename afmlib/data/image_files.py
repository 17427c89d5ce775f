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

import hashlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from afmlib.data.file_names import FileNames
from afmlib.io import storage
from afmlib.io.bounds import memory_shortage
from afmlib.io.file_systems import is_local_system, reaching
from afmlib.typing import Latents

EXTENSIONS = (
    ".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp",
)  # fmt: skip


@dataclass(frozen=True)
class FileListing:
    """The content of a folder, by relative paths, without hidden files and folders."""

    images: FileNames
    """The files with the extension of an image, sorted."""

    versions: np.ndarray[Any, np.dtype[np.uint64]]
    """A hash of path, size and time of each image; 0 if the file system does not tell them."""

    others: list[str]
    """The other files, sorted."""

    folders: list[str]
    """The folders directly in it, sorted."""


def list_files(path: str, versions: bool = False) -> FileListing:
    """Lists a folder recursively.

    Args:
        path: The folder: a path or a URL.
        versions: Whether to hash size and time of the images. Otherwise all versions are 0.

    Raises:
        FileNotFoundError: If the folder does not exist.
        NotADirectoryError: If it is a file.
        OSError: If it, or a folder in it, cannot be read.
        ValueError: If the protocol of the URL is unknown.
    """
    if not storage.exists(path):
        raise FileNotFoundError(f"There is no folder {path}.")
    with reaching(path) as (fs, root):
        if not fs.isdir(root):
            raise NotADirectoryError(f"{path} is a file; a folder of images is needed.")
        found = _scan(root) if is_local_system(fs) else _find(fs, root)
        images: list[tuple[str, int]] = []
        others: list[str] = []
        folders: list[str] = []
        for name, is_folder, entry in found:
            if is_folder:
                folders += [name] if "/" not in name else []
            elif name.lower().endswith(EXTENSIONS):
                images.append((name, _version(name, entry) if versions else 0))
            else:
                others.append(name)
    images.sort()
    hashes = np.fromiter((version for _, version in images), np.uint64, len(images))
    return FileListing(
        FileNames(name for name, _ in images), hashes, sorted(others), sorted(folders)
    )


Found: TypeAlias = Iterator[tuple[str, bool, "os.DirEntry[str] | dict[str, Any]"]]
"""Relative paths, whether each is a folder, and what the file system tells about it."""


def _scan(folder: str, above: str = "") -> Found:
    """Lists a local folder. A link to a folder is a file."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            name = above + entry.name
            is_folder = entry.is_dir(follow_symlinks=False)
            yield name, is_folder, entry
            if is_folder:
                yield from _scan(entry.path, f"{name}/")


def _find(fs: Any, root: str) -> Found:
    """Lists a folder of another file system."""
    for path, entry in fs.find(root, withdirs=True, detail=True).items():
        name = path[len(root) :].strip("/")
        if name and not any(part.startswith(".") for part in name.split("/")):
            yield name, entry["type"] == "directory", entry


def _version(name: str, entry: "os.DirEntry[str] | dict[str, Any]") -> int:
    """Returns a hash of path, size and time of a file; 0 if they are unknown."""
    if isinstance(entry, dict):
        marks = [entry.get(mark) for mark in ("ETag", "etag", "LastModified", "mtime", "created")]
        if not any(marks):
            return 0
        marks.append(entry.get("size"))
    else:
        try:
            status = entry.stat()
        except OSError:  # A broken link, which the check names.
            return 0
        marks = [status.st_size, status.st_mtime_ns]
    text = repr((name, *marks)).encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") or 1


def decode(content: bytes, size: int, channels: int) -> Tensor:
    """Decodes an image file to uint8 of shape (channels, size, size).

    The EXIF orientation is applied, transparent parts become white, and 16 bits become 8. Of an
    animation, the first image is used.

    Raises:
        OSError: If it is not an image, or is corrupt.
        ValueError: If its pixels are not colors.
    """
    with Image.open(io.BytesIO(content)) as opened:
        _check_header(opened)
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
        _check_header(image)
        _flatten(image, "RGB")


def _check_header(image: Image.Image) -> None:
    """Checks size and kind of pixels that the header declares, before they are decoded."""
    if image.mode == "I" and image.format == "TIFF":  # Other formats of this mode have 16 bits.
        raise ValueError("its pixels are 32-bit numbers")
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
