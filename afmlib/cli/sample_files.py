"""What samples are written to: a grid, an array, tensors or single pictures."""

__all__ = ["SUFFIXES", "write_samples"]

from collections.abc import Iterable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from afmlib.io import storage
from afmlib.io.checked_files import write_tensors
from afmlib.io.npz_samples import write_npz
from afmlib.sampling import to_uint8

SUFFIXES = (".png", ".npz", ".safetensors", "")
"""Of the files; a folder has none."""


def write_samples(
    out: str, batches: Iterable[Tensor], labels: Sequence[int], columns: int | None
) -> None:
    """Writes samples as the name says; images become uint8 in all but ``.safetensors``.

    Args:
        out: The file, or a folder: a path or a URL.
        batches: The samples; images are in [-1, 1].
        labels: The class of each.
        columns: The columns of a grid; as many as rows unless given.

    Raises:
        ValueError: If what are no images are to go into a folder.
        OSError: If there is no space or no permission.
    """
    if out.endswith(".npz"):
        write_npz(out, _pixels(batches), torch.as_tensor(labels))
    elif out.endswith(".safetensors"):
        tensors = dict(samples=torch.cat(list(batches)), labels=torch.as_tensor(labels))
        storage.write_atomically(out, lambda file: write_tensors(tensors, file))
    elif out.endswith(".png"):
        from afmlib.evaluation.pictures import save_picture

        samples = torch.cat(list(batches))
        save_picture(samples, out, min(columns or int(len(samples) ** 0.5), len(samples)))
    else:
        _write_folder(_pixels(batches), out)


def _is_image(samples: Tensor) -> bool:
    return samples.ndim == 4 and samples.shape[1] in (1, 3)


def _pixels(batches: Iterable[Tensor]) -> Iterator[Tensor]:
    """Rounds images, which are never cut off, and leaves other samples as they are."""
    for samples in batches:
        yield to_uint8(samples) if _is_image(samples) else samples


def _write_folder(batches: Iterable[Tensor], folder: str) -> None:
    from PIL import Image

    index = 0
    for samples in batches:
        if not _is_image(samples):
            raise ValueError(
                f"Only images go into a folder; write {tuple(samples.shape)} to an .npz."
            )
        for image in samples.permute(0, 2, 3, 1).numpy():
            picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
            path = storage.join(folder, f"{index:06d}.png")
            storage.write_atomically(path, partial(picture.save, format="PNG"))
            index += 1
