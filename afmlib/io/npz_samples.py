"""Samples as the ADM evaluation suite reads them: one ``.npz``, written while they are made.

``arr_0`` has the samples, images as uint8 (N, H, W, C), and ``arr_1`` their labels. Fifty thousand
images of 256 pixels are ten gigabytes, which are never in memory at once.

References:
    | The evaluation suite of guided diffusion (Dhariwal and Nichol, 2021)
    | https://github.com/openai/guided-diffusion/tree/main/evaluations
"""

__all__ = ["write_npz"]

import zipfile
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from afmlib.io import storage
from afmlib.typing import Labels


def write_npz(path: str, batches: Iterable[Tensor], labels: Labels) -> None:
    """Writes samples, batch by batch; the file is there as a whole, or not at all.

    Args:
        path: The file: a path or a URL.
        batches: The samples. Those of four dimensions and uint8 are images, (N, C, H, W).
        labels: The class of each.

    Raises:
        ValueError: If there are not as many samples as labels.
        OSError: If there is no space or no permission.
    """

    def write(file: Any) -> None:
        with zipfile.ZipFile(file, "w") as archive:
            with archive.open("arr_0.npy", "w", force_zip64=True) as entry:
                _write_array(entry, _arrays(batches), len(labels))
            with archive.open("arr_1.npy", "w") as entry:
                np.lib.format.write_array(entry, torch.as_tensor(labels).cpu().numpy())

    storage.write_atomically(path, write)


def _arrays(batches: Iterable[Tensor]) -> Iterator[np.ndarray[Any, Any]]:
    for batch in batches:
        is_image = batch.ndim == 4 and batch.dtype == torch.uint8
        yield (batch.permute(0, 2, 3, 1) if is_image else batch).cpu().numpy()


def _write_array(file: Any, parts: Iterator[np.ndarray[Any, Any]], num: int) -> None:
    written = 0
    for part in parts:
        if not written:
            header = dict(
                descr=np.lib.format.dtype_to_descr(part.dtype),
                fortran_order=False,
                shape=(num, *part.shape[1:]),
            )
            np.lib.format.write_array_header_1_0(file, header)
        file.write(np.ascontiguousarray(part).data)
        written += len(part)
    if written != num:
        raise ValueError(f"{written} samples came for {num} labels.")
