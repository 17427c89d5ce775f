"""Images in Parquet files, as the Hugging Face Hub stores datasets: read by row groups.

A file is a list of row groups, and each stores its columns compressed. So an image cannot be read
as a byte range: its row group is read, and the last few groups are kept in memory. In the index,
the offset of a sample is its row in the file.

References:
    | https://parquet.apache.org/docs/file-format
    | https://huggingface.co/docs/datasets/image_load
"""

__all__ = ["PARQUET", "parquet_index", "read_parquet"]

import bisect
import functools
import itertools
import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from afmlib.data.shard_index import Array, ShardIndex
from afmlib.data.shard_parts import index_of, split_shards
from afmlib.io import storage
from afmlib.io.file_systems import reaching

PARQUET = "parquet"
MAX_GROUP = 2**30
"""Bytes of the images of a row group, which is read whole."""

KEPT = 4
"""Row groups in memory."""

LABELS = ("label", "labels", "cls", "class", "fine_label")
"""Usual names of the column of labels."""


def parquet_index(path: str, shards: Sequence[str]) -> ShardIndex:
    """Lists the images in Parquet files: a column of bytes, and one of whole numbers for labels.

    If no column has a usual name, the only one of whole numbers has the labels, unless each image
    has its own: it is an id then.

    The images are ``{"bytes": ..., "path": ...}``, as the package ``datasets`` stores them, or
    plain bytes.

    Raises:
        OSError: If a file cannot be read, or a package is missing.
        ValueError: If a file is corrupt, or lacks a column of images.
    """
    shards, held = split_shards(shards)
    numbers, rows, labels, is_held_out = [], [], [], []
    info: dict[str, Any] = {}
    for number, shard in enumerate(shards):
        place = storage.join(path, shard) if shard else path
        with _opened(place) as file:
            image, label = _columns(file.schema_arrow, place)
            for group in range(file.num_row_groups):
                if (size := _bytes_of(file, group, image)) > MAX_GROUP:
                    raise ValueError(
                        f"The images of row group {group} of {place} have {size} bytes; at most "
                        f"{MAX_GROUP} are read at once. Write smaller groups: "
                        "datasets.Dataset.to_parquet(..., batch_size=1000)."
                    )
            names = _class_names(file.schema_arrow, label)
            kind = dict(image=image, **({"class_names": names} if names else {}))
            if info and kind != info:
                raise ValueError(f"{place} has {kind}, but others in {path} have {info}.")
            info = kind
            num = file.metadata.num_rows
            found = file.read([label]).column(label).to_pylist() if label else [-1] * num
            if None in found:
                raise ValueError(f"{label} of row {found.index(None)} of {place} is missing.")
        numbers.append(np.full(num, number))
        rows.append(np.arange(num))
        labels.append(np.array(found, np.int64))
        is_held_out.append(np.full(num, held[number]))
    offsets, classes = np.concatenate(rows), np.concatenate(labels)
    if label not in LABELS and len(np.unique(classes)) == len(classes):
        classes = np.full_like(classes, -1)
    columns = np.concatenate(numbers), offsets, 0 * offsets, classes
    rest = np.flatnonzero(np.concatenate(is_held_out))
    return index_of(path, shards, columns, dict(info, layout=PARQUET, content="image"), (), rest)


def read_parquet(index: ShardIndex, rows: Array) -> list[list[bytes]]:
    """Returns the files of images, each in a list of one view.

    Raises:
        OSError: If a file cannot be read.
        ValueError: Names the file or image that is corrupt.
    """
    needed, places = np.unique(rows, return_inverse=True)  # In order of the row groups.
    images = []
    for row in needed.tolist():
        place, offset = index.file(int(index.shard[row])), int(index.offset[row, 0])
        first_rows = _first_rows(place)
        group = bisect.bisect(first_rows, offset) - 1
        content = _images_of(place, group, index.info["image"])[offset - first_rows[group]].as_py()
        if content is None:
            raise ValueError(f"{index.name(row)} has no bytes: save the images in the file.")
        images.append([content])
    return [images[place] for place in places]


@contextmanager
def _opened(place: str) -> Iterator[Any]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise OSError(
            f"{place} needs the package datasets: pip install 'afmlib[datasets]'"
        ) from None
    with reaching(place) as (fs, root), fs.open(root, "rb") as stream:
        try:
            yield pq.ParquetFile(stream)
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{place} is corrupt or not Parquet: {error}") from error


@functools.lru_cache(maxsize=10_000)
def _first_rows(place: str) -> list[int]:
    """Returns the first row of each row group."""
    with _opened(place) as file:
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    return [0, *itertools.accumulate(sizes)][:-1]


@functools.lru_cache(maxsize=KEPT)
def _images_of(place: str, group: int, image: str) -> Any:
    with _opened(place) as file:
        column = file.read_row_group(group, [image]).column(0).combine_chunks()
    return column.field("bytes") if image.endswith(".bytes") else column


def _bytes_of(file: Any, group: int, image: str) -> int:
    content = file.metadata.row_group(group)
    columns = [content.column(number) for number in range(content.num_columns)]
    return sum(c.total_uncompressed_size for c in columns if c.path_in_schema == image)


def _columns(schema: Any, place: str) -> tuple[str, str | None]:
    """Returns the path of the column of images, and the name of that of labels."""
    import pyarrow as pa

    def is_bytes(kind: Any) -> bool:
        return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)

    images, labels = dict[str, str](), list[str]()
    for field in schema:
        if is_bytes(field.type):
            images[field.name] = field.name
        elif pa.types.is_struct(field.type) and any(
            part.name == "bytes" and is_bytes(part.type) for part in field.type
        ):
            images[field.name] = f"{field.name}.bytes"
        elif pa.types.is_integer(field.type):
            labels.append(field.name)
    image = _one_of(images, ("image", "img", "jpg", "png"))
    if image is None:
        raise ValueError(
            f"{place} needs a column of images as bytes, named image. It has "
            f"{', '.join(map(str, schema.names))}."
        )
    return images[image], _one_of(labels, LABELS)


def _one_of(names: Collection[str], usual: Sequence[str]) -> str | None:
    found = next((name for name in usual if name in names), None)
    return found or (next(iter(names)) if len(names) == 1 else None)


def _class_names(schema: Any, label: str | None) -> list[str] | None:
    text = (schema.metadata or {}).get(b"huggingface", b"{}")
    features = json.loads(text).get("info", {}).get("features", {})
    names: list[str] | None = features.get(label, {}).get("names")
    return names
