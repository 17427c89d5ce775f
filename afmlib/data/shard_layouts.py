"""Layouts of images and latents that people have: one function each, which makes an index.

===========================  =================================================  ==================
layout                       files                                              used by
===========================  =================================================  ==================
zip or folder                ``dataset.json``, ``00000/img00000000.png``, or    StyleGAN, EDM2,
                             ``00000/img-mean-std-00000000.npy``                REPA
safetensors                  ``latents``, ``latents_flip``, ``labels``          LightningDiT
tars                         ``KEY.jpg`` or ``KEY.npy``, ``KEY.cls`` or         WebDataset
                             ``KEY.json``
one ``.pt`` per image        ``image`` and ``label``, or ``moments`` and        MeanFlow, Drifting
                             ``moments_flip`` in class folders
pairs of ``.npy``            ``*_features/0.npy``, ``*_labels/0.npy``           fast-DiT
HDF5                         ``latents``, ``labels``                            SoFlow
Arrow                        ``data-00000-of-00001.arrow``                      Hugging Face
CIFAR-10's binary files      ``data_batch_1.bin``, ``test_batch.bin``
===========================  =================================================  ==================

References:
    | https://github.com/NVlabs/edm2/blob/main/dataset_tool.py
    | https://github.com/hustvl/LightningDiT/blob/main/datasets/img_latent_dataset.py
    | https://github.com/webdataset/webdataset
    | https://github.com/Gsunshine/meanflow
    | https://github.com/chuanyangjin/fast-DiT/blob/main/extract_features.py
    | https://www.cs.toronto.edu/~kriz/cifar.html
"""

__all__ = ["CONVENTIONS", "array_of", "make_index", "plain_data"]

import io
import json
import math
import tarfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from afmlib.data.file_names import FileNames
from afmlib.data.image_files import EXTENSIONS
from afmlib.data.latent_folder import CONVENTIONS, parse_conventions
from afmlib.data.shard_index import SUFFIX, Array, ShardIndex
from afmlib.io import storage
from afmlib.io.checked_files import CheckpointError, read_plain_data
from afmlib.io.file_systems import reaching
from afmlib.io.npz import parse_header

LABELS = "dataset.json"
MAX_LABELS = 2**28
"""Bytes of a file with names and labels."""

MAX_HEADER = 2**24
"""Bytes of the header of a safetensors file."""

MANY = 1024
"""Small files that are read at once."""

LOCAL_HEADER = 30
"""Bytes of the header before a member of a zip archive, without its name."""

DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
CIFAR_BATCHES = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
CIFAR_TEST = "test_batch.bin"
CIFAR_SHAPE = (3, 32, 32)


def make_index(path: str) -> ShardIndex:
    """Recognizes the layout of a file or folder, and lists its samples.

    Raises:
        FileNotFoundError: If there is no such file or folder.
        OSError: If it cannot be read.
        ValueError: If the layout is unknown, or names a file that is corrupt.
    """
    if not storage.exists(path):
        raise FileNotFoundError(f"There is no file or folder {path}.")
    with reaching(path) as (fs, root):
        is_folder = fs.isdir(root)
        entries = fs.ls(root, detail=True) if is_folder else []
    kinds = {str(entry["name"]).rstrip("/").rsplit("/", 1)[-1]: entry for entry in entries}
    names = sorted(name for name in kinds if not name.startswith(".") and SUFFIX not in name)
    folders = [name for name in names if kinds[name]["type"] == "directory"]

    def ending(*endings: str) -> list[str]:
        return [name for name in names if name.lower().endswith(endings)]

    if not is_folder:
        return _index_of_file(path)
    if LABELS in names:
        return _folder(path)
    if CIFAR_BATCHES[0] in names:
        return _cifar(path)
    if found := ending(".safetensors"):
        return _safetensors(path, found)
    if found := ending(".tar"):
        return _tars(path, found)
    if found := ending(".arrow"):
        return _arrow(path, found)
    if any(name.endswith("_features") for name in folders):
        return _pairs(path, folders)
    if found := ending(".h5", ".hdf5"):
        return _hdf5(path, found)
    if ending(".pt") or (folders and _first_file(path, folders[0]).endswith(".pt")):
        return _tensors(path)
    raise ValueError(_unknown(path, names))


def _index_of_file(path: str) -> ShardIndex:
    name = path.lower()
    if name.endswith(".zip"):
        return _zip(path)
    if name.endswith(".tar"):
        return _tars(path, [""])
    if name.endswith((".h5", ".hdf5")):
        return _hdf5(path, [""])
    if name.endswith(".safetensors"):
        return _safetensors(path, [""])
    if name.endswith((".tar.gz", ".tgz")):
        raise ValueError(
            f"{path} is compressed, so its samples cannot be read by index. Unpack it with "
            f"tar -xzf {path}, and set path to the folder that it makes."
        )
    raise ValueError(_unknown(path, []))


def _unknown(path: str, names: Sequence[str]) -> str:
    if {"means.npy", CONVENTIONS} <= set(names):
        return f"{path} was written by afmlib encode: use type: LatentFolder."
    if any(name.endswith(".parquet") for name in names) or path.endswith(".parquet"):
        return (
            f"{path} holds compressed Parquet files, which cannot be read by index. Convert them "
            "once with the package datasets: datasets.load_dataset('parquet', "
            f"data_files={path!r})['train'].save_to_disk('FOLDER'). Then set path to the FOLDER."
        )
    there = f" It holds {', '.join(names[:5])}{' ...' if len(names) > 5 else ''}." if names else ""
    return (
        f"The layout of {path} is unknown.{there} Known are a zip or folder with {LABELS}, "
        "safetensors, .tar, .pt, .arrow and .h5 files, folders *_features and *_labels, and "
        f"{CIFAR_BATCHES[0]}. For a folder of images, use type: ImageFolder."
    )


# --- EDM2 and StyleGAN ---


def _zip(path: str) -> ShardIndex:
    with reaching(path) as (fs, root), fs.open(root, "rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                members = sorted(archive.infolist(), key=lambda info: info.header_offset)
                after = [info.header_offset for info in members[1:]] + [archive.start_dir]
                extras = {
                    name: archive.read(name) if name in archive.NameToInfo else b"null"
                    for name in (LABELS, CONVENTIONS)
                }
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
            raise ValueError(f"{path} is corrupt or not a zip archive: {error}") from error
        places = {}
        for info, end in zip(members, after, strict=True):
            if not _is_sample(info.filename):
                continue
            if info.compress_type != zipfile.ZIP_STORED:
                raise ValueError(
                    f"{info.filename} in {path} is compressed, so it cannot be read by index. "
                    "Pack the archive again without compression: zip -0 -r NEW.zip FOLDER."
                )
            start = info.header_offset + LOCAL_HEADER + len(info.filename.encode())
            if start + info.file_size != end:  # The header before the member has extra fields.
                file.seek(info.header_offset)
                head = file.read(LOCAL_HEADER)
                name, extra = (int.from_bytes(head[at : at + 2], "little") for at in (26, 28))
                start = info.header_offset + LOCAL_HEADER + name + extra
            places[info.filename] = (start, info.file_size)
    names = sorted(places)
    labels, info = _labels_of(path, names, extras[LABELS], "")
    starts, lengths = np.array([places[name] for name in names], np.int64).reshape(-1, 2).T
    index = _index(path, [""], (0 * starts, starts, lengths, labels), info, names)
    kind = _described(index, "zip")
    if extras[CONVENTIONS] != b"null":
        kind |= parse_conventions(extras[CONVENTIONS], f"{CONVENTIONS} in {path}")
    return _with(index, kind)


def _folder(path: str) -> ShardIndex:
    sizes = {name: size for name, size in _walk(path) if _is_sample(name)}
    names = sorted(sizes)
    content = storage.read_bytes(storage.join(path, LABELS), MAX_LABELS)
    labels, info = _labels_of(path, names, content, "/")
    lengths = np.array([sizes[name] for name in names], np.int64)
    index = _index(path, names, (np.arange(len(names)), 0 * lengths, lengths, labels), info)
    return _with(index, _described(index, "folder"), _conventions(path))


def _is_sample(name: str) -> bool:
    hidden = any(part.startswith((".", "__MACOSX")) for part in name.split("/"))
    return not hidden and name.lower().endswith((*EXTENSIONS, ".npy"))


def _labels_of(
    path: str, names: Sequence[str], content: bytes, separator: str
) -> tuple[Array, dict[str, Any]]:
    """Returns the labels in ``dataset.json``, and whether the samples are images or latents."""
    if not names:
        raise ValueError(f"There are no images and no .npy files in {path}.")
    kinds = {name.lower().endswith(".npy") for name in names}
    if len(kinds) > 1:
        raise ValueError(f"{path} holds both images and .npy files. Separate them.")
    info = {"content": "npy" if kinds.pop() else "image"}
    given = (_parsed(content, path) or {}).get("labels")
    where = storage.join(path, LABELS) if separator else f"{LABELS} in {path}"
    if given is None:
        return np.zeros(len(names), np.int64), info
    try:
        label_of = {str(name).replace("\\", "/"): label for name, label in given}
    except (TypeError, ValueError):
        raise ValueError(f"{where} must list pairs of name and label.") from None
    missing = [name for name in names if name not in label_of]
    if missing:
        raise ValueError(f"{where} has no label for {missing[0]}, nor {len(missing) - 1} others.")
    labels = [label_of[name] for name in names]
    wrong = next((label for label in labels if type(label) is not int or label < 0), None)
    if wrong is not None:
        raise ValueError(f"The labels in {where} must be whole numbers, got {wrong!r:.60}.")
    return np.array(labels, np.int64), info


# --- LightningDiT ---


def _safetensors(path: str, shards: Sequence[str]) -> ShardIndex:
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
        first = [begin + header[view]["data_offsets"][0] for view in views]
        starts.append(np.arange(num)[:, None] * width + np.array(first, np.int64))
        numbers.append(np.full(num, number))
        lengths.append(np.full(num, width))
        labels.append(_safetensors_labels(place, header["labels"], begin, num))
    kind = _same(kinds)
    info = dict(layout="safetensors", content="raw", moments=False, stored_scale=1.0, **kind)
    columns = (np.concatenate(part) for part in (numbers, starts, lengths, labels))
    return _with(_index(path, shards, columns, info), {}, _conventions(path))


def _safetensors_header(place: str) -> tuple[dict[str, Any], int]:
    with reaching(place) as (fs, root):
        size = int.from_bytes(fs.cat_file(root, start=0, end=8), "little")
        total = fs.info(root)["size"]
        content = b"" if size > MAX_HEADER else fs.cat_file(root, start=8, end=8 + size)
    header = _parsed(content, place)
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


# --- WebDataset ---


def _tars(path: str, shards: Sequence[str]) -> ShardIndex:
    names: list[str] = []
    rows: list[tuple[int, int, int, int]] = []
    flips: list[int] = []
    for number, shard in enumerate(shards):
        place = storage.join(path, shard) if shard else path
        for key, parts, label in _tar_samples(place):
            found = [e for e in parts if e == "npy" or f".{e}" in EXTENSIONS]
            if len(found) != 1:
                raise ValueError(
                    f"{key} in {place} has {', '.join(sorted(parts))}; one image or .npy is needed."
                )
            member, flip = parts[found[0]], parts.get("flip.npy")
            if flip is not None and flip.size != member.size:
                raise ValueError(f"{key}.flip.npy in {place} differs in size from {member.name}.")
            names.append(member.name)
            rows.append((number, member.offset_data, member.size, label))
            flips.append(-1 if flip is None else flip.offset_data)
    if not rows:
        raise ValueError(f"There are no samples in {path}.")
    numbers, starts, lengths, labels = np.array(rows, np.int64).T
    mirrored = [flip >= 0 for flip in flips]
    kinds = {name.lower().endswith(".npy") for name in names}
    if len(kinds) > 1 or any(mirrored) != all(mirrored):
        odd = names[mirrored.index(False)] if any(mirrored) else names[0]
        raise ValueError(f"The samples in {path} differ in their kinds of files, such as {odd}.")
    offsets = np.stack([starts, np.array(flips)], 1) if all(mirrored) else starts
    info = {"content": "npy" if kinds.pop() else "image"}
    index = _index(path, shards, (numbers, offsets, lengths, labels), info, names)
    return _with(index, _described(index, "tars"), _conventions(path))


def _tar_samples(place: str) -> Iterator[tuple[str, dict[str, tarfile.TarInfo], int]]:
    """Yields the key, the members by extension, and the label of each sample."""
    with reaching(place) as (fs, root), fs.open(root, "rb") as file:
        try:
            with tarfile.open(fileobj=file, mode="r:") as archive:
                key, parts = "", dict[str, tarfile.TarInfo]()
                for member in archive:
                    archive.members = []  # type: ignore[attr-defined]  # Otherwise it keeps all.
                    folder, _, base = member.name.rpartition("/")
                    stem, _, extension = base.partition(".")
                    if not member.isfile() or not stem:
                        continue
                    own = f"{folder}/{stem}" if folder else stem
                    if own != key and parts:
                        yield key, parts, _tar_label(place, file, key, parts)
                        parts = {}
                    key = own
                    parts[extension.lower()] = member
                if parts:
                    yield key, parts, _tar_label(place, file, key, parts)
        except tarfile.TarError as error:
            raise ValueError(f"{place} is corrupt or not a tar archive: {error}") from error


def _tar_label(place: str, file: Any, key: str, parts: Mapping[str, tarfile.TarInfo]) -> int:
    extension = next((e for e in ("cls", "json") if e in parts), None)
    if extension is None:
        return -1
    back = file.tell()
    file.seek(parts[extension].offset_data)
    content = _parsed(file.read(min(parts[extension].size, MAX_LABELS)), f"{key} in {place}")
    file.seek(back)
    if isinstance(content, dict):
        names = ("label", "cls", "class_id", "y")
        content = next((content[name] for name in names if name in content), None)
    if type(content) is not int or content < 0:
        raise ValueError(f"The label of {key} in {place} must be a whole number, got {content!r}.")
    return content


# --- One file per image ---


def _tensors(path: str) -> ShardIndex:
    sizes = {name: size for name, size in _walk(path) if name.endswith(".pt")}
    names = sorted(sizes)
    folders = sorted({name.split("/")[0] for name in names if "/" in name})
    labels: list[int] = []
    keys = ["image"]
    for name, content in _contents(path, names):
        state = plain_data(content, storage.join(path, name))
        if not labels:
            keys = [key for key in ("image", "moments", "moments_flip") if key in state]
        if not keys or any(not isinstance(state.get(key), torch.Tensor) for key in keys):
            raise ValueError(
                f"{storage.join(path, name)} has {', '.join(map(str, state))}; a tensor named "
                f"{' and '.join(keys) or 'image or moments'} is needed."
            )
        if "label" in state:
            labels.append(int(state["label"]))
        elif folders and "/" in name:
            labels.append(folders.index(name.split("/")[0]))
        else:
            raise ValueError(f"{storage.join(path, name)} has no label.")
    shape = list(state[keys[0]].shape)
    info = dict(content="pt", layout="tensors", keys=keys, views=len(keys), shape=shape)
    info |= dict(moments=True, stored_scale=1.0)
    lengths = np.array([sizes[name] for name in names], np.int64)
    rows = np.arange(len(names))
    index = _index(path, names, (rows, 0 * rows, lengths, np.array(labels)), info)
    return _with(index, {}, _conventions(path))


def plain_data(content: bytes, name: str) -> dict[str, Any]:
    """Reads a dictionary written by torch.save, without running code.

    Raises:
        ValueError: Names the file if it is corrupt or holds more than plain data.
    """
    try:
        return read_plain_data(io.BytesIO(content), name)
    except CheckpointError as error:
        raise ValueError(str(error)) from error


def _pairs(path: str, folders: Sequence[str]) -> ShardIndex:
    features = next(name for name in folders if name.endswith("_features"))
    classes = features.removesuffix("_features") + "_labels"
    if classes not in folders:
        raise ValueError(f"{path} has {features}, but no {classes}.")
    sizes = {name: size for name, size in _walk(storage.join(path, features)) if ".npy" in name}
    names = sorted(sizes, key=lambda name: (len(name), name))
    where, labels = storage.join(path, classes), []
    for name, content in _contents(where, names):
        array = array_of(content, storage.join(where, name))
        if array.size != 1 or array.dtype.kind not in "iu":
            raise ValueError(f"{storage.join(where, name)} must hold one integer.")
        labels.append(int(array.reshape(-1)[0]))
    lengths = np.array([sizes[name] for name in names], np.int64)
    files, rows = [f"{features}/{name}" for name in names], np.arange(len(names))
    info = dict(content="npy", moments=False)
    index = _index(path, files, (rows, 0 * rows, lengths, np.array(labels)), info)
    kind = _described(index, "pairs") | dict(moments=False, stored_scale=0.18215)
    return _with(index, kind, _conventions(path))


# --- Arrays of many samples ---


def _hdf5(path: str, shards: Sequence[str]) -> ShardIndex:
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
    kind = _same(kinds)
    if kind["dtype"] not in DTYPES.values():
        raise ValueError(f"The latents of {path} must be floating point, got {kind['dtype']}.")
    info = dict(content="raw", layout="hdf5", views=1, moments=True, stored_scale=1.0, **kind)
    width = math.prod(kind["shape"]) * np.dtype(kind["dtype"]).itemsize
    offsets = np.concatenate(starts)
    columns = np.concatenate(numbers), offsets, np.full(len(offsets), width), np.concatenate(labels)
    return _with(_index(path, shards, columns, info), {}, _conventions(path, len(shards[0]) > 0))


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


def _cifar(path: str) -> ShardIndex:
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
    return _index(path, shards, columns, info, held_out=np.flatnonzero(is_held_out))


def _arrow(path: str, shards: Sequence[str]) -> ShardIndex:
    """The Arrow files of Hugging Face's ``datasets``: encoded images lie in them as they are."""
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
    return _with(_index(path, shards, columns, info), {}, {})


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


# --- What the layouts share ---


def _index(
    path: str,
    shards: Sequence[str],
    columns: Iterable[Array],
    info: Mapping[str, Any],
    members: Sequence[str] = (),
    held_out: Array | None = None,
) -> ShardIndex:
    shard, offset, length, labels = columns
    classes = np.array(labels, np.int64)
    if len(classes) and (classes < 0).any():
        if not (classes == -1).all():
            raise ValueError(f"Some samples of {path} have no label or a negative one.")
        classes = np.zeros_like(classes)
    if not len(classes):
        raise ValueError(f"There are no samples in {path}.")
    if int(np.max(length)) >= 2**31:
        raise ValueError(f"A sample of {path} has {int(np.max(length))} bytes.")
    return ShardIndex(
        path=path,
        shards=FileNames(shards),
        members=FileNames(members),
        shard=np.asarray(shard).astype(np.int32),
        offset=np.asarray(offset, np.int64).reshape(len(classes), -1),
        length=np.asarray(length).astype(np.int32),
        labels=torch.from_numpy(classes),
        held_out=np.empty(0, np.int64) if held_out is None else held_out,
        info=dict(info),
    )


def _with(index: ShardIndex, *infos: Mapping[str, Any] | None) -> ShardIndex:
    for info in infos:
        index.info.update(info or {})
    return index


def _described(index: ShardIndex, layout: str) -> dict[str, Any]:
    """Returns the layout, and of latents the shape of the first sample."""
    if index.info["content"] != "npy":
        return dict(layout=layout)
    array = array_of(index.read([0])[0][0], index.name(0))
    shape = list(array.shape[1:] if array.ndim == 4 and len(array) == 1 else array.shape)
    return dict(
        layout=layout, shape=shape, views=index.offset.shape[1], moments=True, stored_scale=1.0
    )


def array_of(content: bytes, name: str) -> Array:
    """Reads an ``.npy`` file, without unpickling.

    Raises:
        ValueError: Names the file if it is corrupt.
    """
    try:
        stream = io.BytesIO(content)
        header = parse_header(stream)
        if header.is_fortran or header.dtype.hasobject:
            raise ValueError("it holds objects, or is not in C order")
        return np.frombuffer(content, header.dtype, offset=stream.tell()).reshape(header.shape)
    except Exception as error:  # NumPy may raise anything for a corrupt header.
        raise ValueError(f"{name} is corrupt or not a plain array: {error}") from error


def _same(kinds: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Returns the kind of all shards."""
    first = next(iter(kinds))
    for place, kind in kinds.items():
        if kind != kinds[first]:
            raise ValueError(f"{place} holds {kind}, but {first} holds {kinds[first]}.")
    return kinds[first]


def _parsed(content: bytes, name: str) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} is corrupt: {error}") from None


def _conventions(path: str, is_folder: bool = True) -> dict[str, Any]:
    place = storage.join(path, CONVENTIONS)
    if not is_folder or not storage.exists(place):
        return {}
    return parse_conventions(storage.read_bytes(place, MAX_LABELS), place)


def _walk(path: str) -> Iterator[tuple[str, int]]:
    """Yields the relative paths and sizes of all files below a folder."""
    with reaching(path) as (fs, root):
        for name, entry in fs.find(root, detail=True).items():
            yield str(name)[len(root) :].strip("/"), int(entry["size"])


def _first_file(path: str, folder: str) -> str:
    return next(iter(storage.list_files(storage.join(path, folder))), "")


def _contents(path: str, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Yields the content of small files, many at a time from remote file systems."""
    if storage.local_path(path) is not None:
        for name in names:
            yield name, storage.read_bytes(storage.join(path, name), MAX_LABELS)
        return
    with reaching(path) as (fs, root):
        for first in range(0, len(names), MANY):
            some = names[first : first + MANY]
            paths = [f"{root.rstrip('/')}/{name}" for name in some]
            found = fs.cat_ranges(paths, [0] * len(some), [None] * len(some), on_error="raise")
            yield from zip(some, found, strict=True)
