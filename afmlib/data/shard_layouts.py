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
Parquet                      ``train-00000-of-00001.parquet``                   Hugging Face
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

__all__ = ["make_index"]

import tarfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from afmlib.data.image_files import EXTENSIONS
from afmlib.data.latent_folder import CONVENTIONS, parse_conventions
from afmlib.data.parquet_images import parquet_index
from afmlib.data.shard_arrays import (
    CIFAR_BATCHES,
    arrow_index,
    cifar_index,
    hdf5_index,
    safetensors_index,
)
from afmlib.data.shard_index import SUFFIX, Array, ShardIndex
from afmlib.data.shard_parts import (
    MAX_LABELS,
    array_of,
    index_of,
    parsed,
    plain_data,
    recorded,
    small_files,
    split_shards,
    updated,
    walk,
)
from afmlib.io import storage
from afmlib.io.bounds import check_plain_file
from afmlib.io.file_systems import reaching

LABELS = "dataset.json"
LOCAL_HEADER = 30
"""Bytes of the header before a member of a zip archive, without its name."""


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
        return cifar_index(path)
    if found := ending(".safetensors"):
        return safetensors_index(path, found)
    if found := ending(".tar"):
        return _tars(path, found)
    if found := ending(".arrow"):
        return arrow_index(path, found)
    if found := ending(".parquet"):
        return parquet_index(path, found)
    if "data" in folders and _first_file(path, "data").endswith(".parquet"):  # A clone of the Hub.
        within = (name for name, _ in walk(path) if name.endswith(".parquet"))
        return parquet_index(path, sorted(name for name in within if name.startswith("data/")))
    if any(name.endswith("_features") for name in folders):
        return _pairs(path, folders)
    if found := ending(".h5", ".hdf5"):
        return hdf5_index(path, found)
    if ending(".pt") or (folders and _first_file(path, folders[0]).endswith(".pt")):
        return _tensors(path)
    raise ValueError(_unknown(path, names))


def _index_of_file(path: str) -> ShardIndex:
    if (local := storage.local_path(path)) is not None:
        check_plain_file(local)
    name = path.lower()
    if name.endswith(".zip"):
        return _zip(path)
    if name.endswith(".tar"):
        return _tars(path, [""])
    if name.endswith((".h5", ".hdf5")):
        return hdf5_index(path, [""])
    if name.endswith(".safetensors"):
        return safetensors_index(path, [""])
    if name.endswith(".parquet"):
        return parquet_index(path, [""])
    if name.endswith((".tar.gz", ".tgz")):
        raise ValueError(
            f"{path} is compressed, so its samples cannot be read by index. Unpack it with "
            f"tar -xzf {path}, and set path to the folder that it makes."
        )
    raise ValueError(_unknown(path, []))


def _unknown(path: str, names: Sequence[str]) -> str:
    if {"means.npy", CONVENTIONS} <= set(names):
        return f"{path} was written by afmlib encode: use type: LatentFolder."
    there = f" It holds {', '.join(names[:5])}{' ...' if len(names) > 5 else ''}." if names else ""
    return (
        f"The layout of {path} is unknown.{there} Known are a zip or folder with {LABELS}, "
        "safetensors, .tar, .pt, .arrow, .parquet and .h5 files, folders *_features and *_labels, "
        f"and {CIFAR_BATCHES[0]}. For a folder of images, use type: ImageFolder."
    )


# --- EDM2 and StyleGAN ---


def _zip(path: str) -> ShardIndex:
    with reaching(path) as (fs, root), fs.open(root, "rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                members = sorted(archive.infolist(), key=lambda info: info.header_offset)
                after = [info.header_offset for info in members[1:]] + [archive.start_dir]
                extras = {LABELS: b"null", CONVENTIONS: b"null"}
                for member in members:
                    if member.filename in extras and member.file_size <= MAX_LABELS:
                        extras[member.filename] = archive.read(member)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
            raise ValueError(f"{path} is corrupt or not a zip archive: {error}") from error
        places = {}
        for member, end in zip(members, after, strict=True):
            if not _is_sample(member.filename):
                continue
            if member.compress_type != zipfile.ZIP_STORED:
                raise ValueError(
                    f"{member.filename} in {path} is compressed, so it cannot be read by index. "
                    "Pack the archive again without compression: zip -0 -r NEW.zip FOLDER."
                )
            start = member.header_offset + LOCAL_HEADER + len(member.filename.encode())
            if start + member.file_size != end:  # The header before the member has extra fields.
                file.seek(member.header_offset)
                head = file.read(LOCAL_HEADER)
                name, extra = (int.from_bytes(head[at : at + 2], "little") for at in (26, 28))
                start = member.header_offset + LOCAL_HEADER + name + extra
            places[member.filename] = (start, member.file_size)
    names = sorted(places)
    labels, info = _labels_of(path, names, extras[LABELS], "")
    starts, lengths = np.array([places[name] for name in names], np.int64).reshape(-1, 2).T
    index = index_of(path, [""], (0 * starts, starts, lengths, labels), info, names)
    kind = _described(index, "zip")
    if extras[CONVENTIONS] != b"null":
        kind |= parse_conventions(extras[CONVENTIONS], f"{CONVENTIONS} in {path}")
    return updated(index, kind)


def _folder(path: str) -> ShardIndex:
    sizes = {name: size for name, size in walk(path) if _is_sample(name)}
    names = sorted(sizes)
    content = storage.read_bytes(storage.join(path, LABELS), MAX_LABELS)
    labels, info = _labels_of(path, names, content, "/")
    lengths = np.array([sizes[name] for name in names], np.int64)
    index = index_of(path, names, (np.arange(len(names)), 0 * lengths, lengths, labels), info)
    return updated(index, _described(index, "folder"), recorded(path))


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
    given = (parsed(content, path) or {}).get("labels")
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


# --- WebDataset ---


def _tars(path: str, shards: Sequence[str]) -> ShardIndex:
    shards, held = split_shards(shards)
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
            if held[number] and found[0] == "npy":
                continue  # Nothing evaluates latents that are held out.
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
    rest = np.flatnonzero(np.array(held)[numbers])
    index = index_of(path, shards, (numbers, offsets, lengths, labels), info, names, rest)
    return updated(index, _described(index, "tars"), recorded(path))


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
    content = parsed(file.read(min(parts[extension].size, MAX_LABELS)), f"{key} in {place}")
    file.seek(back)
    if isinstance(content, dict):
        names = ("label", "cls", "class_id", "y")
        content = next((content[name] for name in names if name in content), None)
    if type(content) is not int or content < 0:
        raise ValueError(f"The label of {key} in {place} must be a whole number, got {content!r}.")
    return content


# --- One file per image ---


def _tensors(path: str) -> ShardIndex:
    sizes = {name: size for name, size in walk(path) if name.endswith(".pt")}
    names = sorted(sizes)
    folders = sorted({name.split("/")[0] for name in names if "/" in name})
    labels: list[int] = []
    keys = ["image"]
    for name, content in small_files(path, names):
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
    index = index_of(path, names, (rows, 0 * rows, lengths, np.array(labels)), info)
    return updated(index, {}, recorded(path))


def _pairs(path: str, folders: Sequence[str]) -> ShardIndex:
    features = next(name for name in folders if name.endswith("_features"))
    classes = features.removesuffix("_features") + "_labels"
    if classes not in folders:
        raise ValueError(f"{path} has {features}, but no {classes}.")
    sizes = {name: size for name, size in walk(storage.join(path, features)) if ".npy" in name}
    names = sorted(sizes, key=lambda name: (len(name), name))
    where, labels = storage.join(path, classes), []
    for name, content in small_files(where, names):
        array = array_of(content, storage.join(where, name))
        if array.size != 1 or array.dtype.kind not in "iu":
            raise ValueError(f"{storage.join(where, name)} must hold one integer.")
        labels.append(int(array.reshape(-1)[0]))
    lengths = np.array([sizes[name] for name in names], np.int64)
    files, rows = [f"{features}/{name}" for name in names], np.arange(len(names))
    info = dict(content="npy", moments=False)
    index = index_of(path, files, (rows, 0 * rows, lengths, np.array(labels)), info)
    kind = _described(index, "pairs") | dict(moments=False, stored_scale=0.18215)
    return updated(index, kind, recorded(path))


def _described(index: ShardIndex, layout: str) -> dict[str, Any]:
    """Returns the layout, and of latents the shape of the first sample."""
    if index.info["content"] != "npy":
        return dict(layout=layout)
    array = array_of(index.read([0])[0][0], index.name(0))
    shape = list(array.shape[1:] if array.ndim == 4 and len(array) == 1 else array.shape)
    return dict(
        layout=layout, shape=shape, views=index.offset.shape[1], moments=True, stored_scale=1.0
    )


def _first_file(path: str, folder: str) -> str:
    return next(iter(storage.list_files(storage.join(path, folder))), "")
