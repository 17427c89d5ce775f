"""Files of many samples that lie one after another: safetensors, HDF5, CIFAR-10 and Arrow."""

__all__ = ["CIFAR_BATCHES", "arrow_index", "cifar_index", "hdf5_index", "safetensors_index"]

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from afmlib.data.shard_index import Array, ShardIndex
from afmlib.data.shard_parts import index_of, parsed, recorded, same_kind, updated
from afmlib.io import storage
from afmlib.io.file_systems import reaching

MAX_HEADER = 2**24
"""Bytes of the header of a safetensors file."""

DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
CIFAR_BATCHES = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
CIFAR_TEST = "test_batch.bin"
CIFAR_SHAPE = (3, 32, 32)


# --- LightningDiT ---


def safetensors_index(path: str, shards: Sequence[str]) -> ShardIndex:
    """Lists the rows of ``latents`` in shards, as LightningDiT writes them."""
    numbers, starts, lengths, labels, kinds = [], [], [], [], {}
    for number, shard in enumerate(shards):
        place = storage.join(path, shard) if shard else path
        header, begin = _safetensors_header(place)
        views = [name for name in ("latents", "latents_flip") if name in header]
        if "latents" not in views or "labels" not in header:
            raise ValueError(
                f"{place} has {', '.join(sorted(header)) or 'no tensor'}; latents and labels are "
                "needed, and optionally latents_flip."
            )
        num, *shape = header["latents"]["shape"]
        dtype = DTYPES.get(header["latents"]["dtype"])
        if dtype is None or any(header[v]["shape"] != [num, *shape] for v in views):
            raise ValueError(f"latents and latents_flip of {place} differ, or are not numbers.")
        kinds[place] = dict(shape=shape, dtype=dtype, views=len(views))
        width = math.prod(shape) * torch.empty(0, dtype=getattr(torch, dtype)).element_size()
        offsets = [header[view]["data_offsets"] for view in views]
        if any(end - start != num * width for start, end in offsets):
            raise ValueError(f"{place} is corrupt: its header does not fit its tensors.")
        first = [begin + start for start, _ in offsets]
        starts.append(np.arange(num)[:, None] * width + np.array(first, np.int64))
        numbers.append(np.full(num, number))
        lengths.append(np.full(num, width))
        labels.append(_safetensors_labels(place, header["labels"], begin, num))
    kind = same_kind(kinds)
    info = dict(layout="safetensors", content="raw", moments=False, stored_scale=1.0, **kind)
    columns = (np.concatenate(part) for part in (numbers, starts, lengths, labels))
    return updated(index_of(path, shards, columns, info), {}, recorded(path))


def _safetensors_header(place: str) -> tuple[dict[str, Any], int]:
    with reaching(place) as (fs, root):
        size = int.from_bytes(fs.cat_file(root, start=0, end=8), "little")
        total = fs.info(root)["size"]
        content = b"" if size > MAX_HEADER else fs.cat_file(root, start=8, end=8 + size)
    header = parsed(content, place)
    if not isinstance(header, dict) or len(content) != size:
        raise ValueError(f"{place} is corrupt or not safetensors.")
    header.pop("__metadata__", None)
    end = max((tensor["data_offsets"][1] for tensor in header.values()), default=0)
    if total != 8 + size + end:
        raise ValueError(f"{place} is corrupt: it has {total} bytes instead of {8 + size + end}.")
    return header, 8 + size


def _safetensors_labels(place: str, tensor: Mapping[str, Any], begin: int, num: int) -> Array:
    dtypes = {"I64": np.int64, "I32": np.int32, "I16": np.int16, "U8": np.uint8}
    if tensor["dtype"] not in dtypes or math.prod(tensor["shape"]) != num:
        raise ValueError(f"The labels of {place} must be {num} integers.")
    start, end = (begin + offset for offset in tensor["data_offsets"])
    with reaching(place) as (fs, root):
        return np.frombuffer(fs.cat_file(root, start=start, end=end), dtypes[tensor["dtype"]])


# --- Arrays of many samples ---


def hdf5_index(path: str, shards: Sequence[str]) -> ShardIndex:
    """Lists the rows of ``latents`` in HDF5 files, as SoFlow writes them."""
    try:
        import h5py
    except ImportError:
        raise OSError(f"{path} needs the package h5py: pip install 'afmlib[hdf5]'") from None
    numbers, starts, labels, kinds = [], [], [], {}
    for number, shard in enumerate(shards):
        place = storage.join(path, shard) if shard else path
        with reaching(place) as (fs, root), fs.open(root, "rb") as file:
            try:
                with h5py.File(file, "r") as archive:
                    rows, classes = archive["latents"], archive["labels"][:]
                    starts.append(_hdf5_offsets(rows, place))
                    kinds[place] = dict(shape=list(rows.shape[1:]), dtype=str(rows.dtype))
            except (KeyError, OSError) as error:
                reason = str(error).strip("'\"")
                raise ValueError(f"{place} is corrupt or lacks latents: {reason}") from error
        if len(classes) != len(starts[-1]):
            raise ValueError(f"{place} has {len(starts[-1])} latents but {len(classes)} labels.")
        labels.append(classes.reshape(-1).astype(np.int64))
        numbers.append(np.full(len(classes), number))
    kind = same_kind(kinds)
    if kind["dtype"] not in DTYPES.values():
        raise ValueError(f"The latents of {path} must be floating point, got {kind['dtype']}.")
    info = dict(content="raw", layout="hdf5", views=1, moments=True, stored_scale=1.0, **kind)
    width = math.prod(kind["shape"]) * np.dtype(kind["dtype"]).itemsize
    offsets = np.concatenate(starts)
    columns = np.concatenate(numbers), offsets, np.full(len(offsets), width), np.concatenate(labels)
    return updated(index_of(path, shards, columns, info), {}, recorded(path, len(shards[0]) > 0))


def _hdf5_offsets(rows: Any, place: str) -> Array:
    """Returns the first byte of each row, which are stored whole."""
    width = math.prod(rows.shape[1:]) * rows.dtype.itemsize
    if rows.chunks is None and (start := rows.id.get_offset()) is not None:
        return start + np.arange(len(rows), dtype=np.int64) * width
    if rows.chunks is None or rows.compression or tuple(rows.chunks[1:]) != rows.shape[1:]:
        raise ValueError(
            f"The latents of {place} are compressed or cut within samples, so they cannot be read "
            f"by index. Store them in order: h5repack -l CONTI -f NONE {place} NEW.h5."
        )
    offsets = np.zeros(len(rows), np.int64)
    for number in range(rows.id.get_num_chunks()):
        chunk = rows.id.get_chunk_info(number)
        first = chunk.chunk_offset[0]
        part = offsets[first : first + rows.chunks[0]]
        part[:] = chunk.byte_offset + np.arange(len(part)) * width
    return offsets


def cifar_index(path: str) -> ShardIndex:
    """Lists the images of CIFAR-10's binary files. Each record is a label and the colors."""
    numbers, starts, labels = [], [], []
    with reaching(path) as (fs, root):
        there = {str(name).rsplit("/", 1)[-1] for name in fs.ls(root, detail=False)}
    shards = [name for name in (*CIFAR_BATCHES, CIFAR_TEST) if name in there]
    width = 1 + math.prod(CIFAR_SHAPE)
    for number, shard in enumerate(shards):
        content = storage.read_bytes(storage.join(path, shard))
        if not content or len(content) % width:
            raise ValueError(
                f"{storage.join(path, shard)} is corrupt: {len(content)} bytes are not a multiple "
                f"of {width}."
            )
        labels.append(np.frombuffer(content, np.uint8)[::width].astype(np.int64))
        starts.append(1 + width * np.arange(len(labels[-1])))
        numbers.append(np.full(len(labels[-1]), number))
    info = dict(content="raw", layout="cifar", shape=list(CIFAR_SHAPE), dtype="uint8", views=1)
    if "batches.meta.txt" in there:
        text = storage.read_bytes(storage.join(path, "batches.meta.txt"), MAX_HEADER).decode()
        info["class_names"] = text.split()
    of_shard = np.concatenate(numbers)
    is_held_out = np.array([shard == CIFAR_TEST for shard in shards])[of_shard]
    lengths = np.full(len(of_shard), width - 1)
    columns = of_shard, np.concatenate(starts), lengths, np.concatenate(labels)
    return index_of(path, shards, columns, info, held_out=np.flatnonzero(is_held_out))


def arrow_index(path: str, shards: Sequence[str]) -> ShardIndex:
    """Lists the images in Arrow files of Hugging Face's ``datasets``, which hold them encoded."""
    try:
        import pyarrow as pa
    except ImportError:
        raise OSError(
            f"{path} needs the package datasets: pip install 'afmlib[datasets]'"
        ) from None
    if storage.local_path(path) is None:
        raise ValueError(f"Arrow files are indexed on a local disk; {path} is remote.")
    numbers, starts, lengths, labels = [], [], [], []
    names: list[str] | None = None
    for number, shard in enumerate(shards):
        place = storage.join(path, shard)
        try:
            with pa.memory_map(storage.local_path(place)) as file:
                base = file.read_buffer(file.size()).address
                file.seek(0)
                reader = pa.ipc.open_stream(file)
                names = names or _arrow_classes(reader.schema)
                for batch in reader:
                    first, width = _arrow_ranges(batch.column("image"), base)
                    starts.append(first)
                    lengths.append(width)
                    numbers.append(np.full(len(first), number))
                    labels.append(batch.column("label").to_numpy(zero_copy_only=False))
        except (pa.ArrowException, KeyError) as error:
            raise ValueError(f"{place} is corrupt or lacks image and label: {error}") from error
    columns = (np.concatenate(part).astype(np.int64) for part in (numbers, starts, lengths, labels))
    info = dict(content="image", layout="arrow", **({"class_names": names} if names else {}))
    return updated(index_of(path, shards, columns, info), {}, {})


def _arrow_ranges(column: Any, base: int) -> tuple[Array, Array]:
    content = column.field("bytes") if hasattr(column, "field") else column
    if content.null_count:
        raise KeyError("images are paths, not bytes: save the dataset with its files embedded")
    wide = np.int64 if "large" in str(content.type) else np.int32
    _, ends, data = content.buffers()
    bounds = np.frombuffer(ends, wide)[content.offset : content.offset + len(content) + 1]
    return data.address - base + bounds[:-1].astype(np.int64), np.diff(bounds)


def _arrow_classes(schema: Any) -> list[str] | None:
    text = (schema.metadata or {}).get(b"huggingface", b"{}")
    features = json.loads(text).get("info", {}).get("features", {})
    return features.get("label", {}).get("names")
