"""Thousands of corrupt and hostile files: each is read correctly or raises a clear error.

A right checksum proves nothing about a file that was made to do harm, so most files are mutated
under checksums that are right.
"""

import collections
import contextlib
import copy
import hashlib
import io
import json
import os
import pickle
import signal
import struct
import sys
import uuid
import zipfile

import fsspec
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from afmlib.data.latent_folder import LatentFolder, write_latents
from afmlib.io.checkpoint import (
    CheckpointError,
    find_checkpoint,
    load_tensors,
    load_training_state,
    read_config,
    read_manifest,
)
from afmlib.sampling import load_checkpoint

resource = pytest.importorskip("resource")  # Of POSIX, as alarms are.

NUMBERS = [0, -1, 1, 7, 10**9, 2**63, 10**30, -(10**30), 0.5, 1e308, float("inf"), float("nan")]
NESTED = "x"
for _ in range(200):
    NESTED = [NESTED]
JUNK = [
    *NUMBERS,
    *(None, True, False, "", "x", "\ud800", "0" * 1000, [], {}, [[]], [1, "x"], [10**9] * 9),
    *({"type": "os.system", "command": "true"}, {"type": None}, {"": {}}, NESTED, {"a": NESTED}),
    *("DiTGenerator", "dit_xl_2", {"type": "DiTGenerator", "depth": 10**9}),
    {"type": "RepeatDepth", "repeats": 10**9, "generator": "dit_xl_2"},
    {"type": "MLPGenerator", "in_channels": 2, "hidden_size": 10**9},
]
EXAMPLES = [200, pytest.param(2000, marks=pytest.mark.slow)]
junk = st.sampled_from(JUNK).map(copy.deepcopy)


# --- Mutations of a file ---


def flip(draw, content):
    changed = bytearray(content)
    for position in draw(st.lists(st.integers(0, max(len(content) - 1, 0)), max_size=5)):
        changed[position : position + 1] = bytes([draw(st.integers(0, 255))])
    return bytes(changed)


def cut(draw, content):
    return content[: draw(st.integers(0, len(content)))]


def insert(draw, content):
    position = draw(st.integers(0, len(content)))
    return content[:position] + draw(st.binary(max_size=50)) + content[position:]


def repeat(draw, content):
    start, stop = sorted(draw(st.integers(0, len(content))) for _ in range(2))
    return content[:stop] + content[start:stop] * draw(st.integers(1, 3)) + content[stop:]


DAMAGES = [flip, cut, insert, repeat]


def damage(draw, content):
    return draw(st.sampled_from(DAMAGES))(draw, content)


def paths(value, path=()):
    """Yields where all values in nested dicts and lists stand."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, part in items:
        yield (*path, key)
        if isinstance(part, dict | list):
            yield from paths(part, (*path, key))


def spoil(draw, value):
    """Replaces something in nested dicts and lists by junk, or removes it."""
    for _ in range(draw(st.integers(1, 3))):
        places = list(paths(value))
        if not places:
            break
        *path, key = draw(st.sampled_from(places))
        part = value
        for name in path:
            part = part[name]
        if draw(st.integers(0, 4)):
            part[key] = draw(junk)
        else:
            del part[key]
    return value


def spoil_header(draw, content):
    """Corrupts the header of safetensors or its length."""
    size = struct.unpack("<Q", content[:8])[0]
    header = spoil(draw, json.loads(content[8 : 8 + size]))
    text = json.dumps(header).encode()
    sizes = st.just(len(text)) | st.sampled_from([0, 1, 2**31, 2**63, 2**64 - 1])
    return struct.pack("<Q", draw(sizes)) + text + content[8 + size :]


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def torch_file(value, **options):
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def repacked(draw, content):
    """Repacks an archive, squeezed or with other entries."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(content)) as old,
        zipfile.ZipFile(buffer, "w", draw(st.sampled_from([0, zipfile.ZIP_DEFLATED]))) as new,
    ):
        for name in old.namelist():
            part = old.read(name)
            if not draw(st.integers(0, 3)):
                part = draw(st.sampled_from([damage(draw, part), bytes(10**7)]))
            new.writestr(name, part)
    return buffer.getvalue()


# --- Checkpoints ---


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


def sealed(files, manifest):
    """Returns files and a manifest with checksums that are right."""
    files = {name: content for name, content in files.items() if name != "manifest.json"}
    if isinstance(manifest.get("files"), dict):
        for name, content in files.items():
            if name in manifest["files"]:
                manifest["files"][name] = hashlib.sha256(content).hexdigest()
    manifest.pop("checksum", None)
    text = json.dumps(manifest, sort_keys=True)
    manifest["checksum"] = hashlib.sha256(text.encode()).hexdigest()
    return {**files, "manifest.json": json.dumps(manifest).encode()}


def mutate(draw, whole, marker):
    """Returns the files of a checkpoint to which something happened."""
    files, manifest = dict(whole), json.loads(whole["manifest.json"])
    kind = draw(st.sampled_from(["file", "swap", "manifest", "header", "training", "loose"]))
    name = draw(st.sampled_from(sorted(whole)))
    if kind == "loose":  # The only kind that a checksum finds.
        return {**files, name: damage(draw, files[name])}
    if kind == "file":
        files[name] = damage(draw, files[name])
    elif kind == "swap":
        other = draw(st.sampled_from(sorted(whole)))
        files[name], files[other] = files[other], files[name]
    elif kind == "manifest":
        manifest = spoil(draw, manifest)
    elif kind == "header":
        name = draw(st.sampled_from(["generator.safetensors", "generator_ema.safetensors"]))
        files[name] = spoil_header(draw, files[name])
    else:
        payload = {"seen": Payload(marker), "moments": torch.zeros(3)}
        contents = [
            torch_file(payload),
            torch_file(payload, _use_new_zipfile_serialization=False),
            pickle.dumps(payload, protocol=2),
            torch_file(draw(junk)),
            repacked(draw, files["training.pt"]),
            damage(draw, torch_file(payload)),
        ]
        files["training.pt"] = draw(st.sampled_from(contents))
    return sealed(files, manifest)


class Hang(BaseException):
    """A timeout; code that catches Exception does not catch it."""


def peak_memory():
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@contextlib.contextmanager
def quickly(seconds=10):
    """Limits time, and memory to 300 MB."""

    def stop(*_):
        raise Hang

    handler = signal.signal(signal.SIGALRM, stop)
    before = peak_memory()
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)
    assert peak_memory() - before < 300e6


READERS = {
    "find": lambda folder: find_checkpoint(str(folder.parent.parent)),
    "manifest": lambda folder: read_manifest(str(folder)),
    "tensors": lambda folder: load_tensors(str(folder), "generator_ema"),
    "training": lambda folder: load_training_state(str(folder)),
    "config": lambda folder: read_config(str(folder)),
    "model": lambda folder: load_checkpoint(str(folder)),
    "online model": lambda folder: load_checkpoint(str(folder), ema=False),
}


def search(examples, test):
    """Runs a test of ``st.data().draw`` on so many examples."""
    run = given(st.data())(lambda data: test(data.draw))
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]
    settings(max_examples=examples, suppress_health_check=checks)(run)()


@pytest.mark.filterwarnings("ignore")  # Of torch: complex weights, and old pickles.
@pytest.mark.parametrize("examples", EXAMPLES)
def test_fuzzed_checkpoint_loads_or_raises(folder, model_files, examples):
    outcomes = collections.Counter()

    def test(draw):
        run = folder / str(uuid.uuid4())
        marker = str(run / "was-run")
        place = run / "checkpoints" / "64"
        place.mkdir(parents=True)
        for name, content in mutate(draw, model_files, marker).items():
            (place / name).write_bytes(content)
        for name, read in READERS.items():
            with quickly():
                try:
                    read(place)
                except CheckpointError as error:
                    outcomes[name, "refused"] += len(str(error)) > 0
                else:
                    outcomes[name, "read"] += 1
        assert not os.path.exists(marker)

    search(examples, test)

    for name in READERS:  # Else the mutations are too wild, or too tame, to show anything.
        assert min(outcomes[name, "refused"], outcomes[name, "read"]) >= examples / 50, outcomes


@pytest.mark.parametrize(
    "change",
    [
        dict(hidden_size=10**9),
        dict(depth=10**9),
        dict(num_classes=10**12),
        dict(input_size=10**6),
        dict(mlp_ratio=1e12),
        dict(in_channels=10**10),
    ],
)
@pytest.mark.parametrize("type_", ["DiTGenerator", "RepeatDepth"])
def test_oversized_network_takes_no_memory(folder, model_files, change, type_):
    manifest = json.loads(model_files["manifest.json"])
    manifest["generator"] |= change
    if type_ == "RepeatDepth":
        manifest["generator"] = {"type": type_, "generator": manifest["generator"], "repeats": 2}
    place = folder / str(uuid.uuid4())
    place.mkdir()
    for name, content in sealed(model_files, manifest).items():
        (place / name).write_bytes(content)

    with quickly(), pytest.raises(CheckpointError, match="far larger than its weights"):
        load_checkpoint(str(place))


def test_zip_bomb_raises(folder, model_files):
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(model_files["training.pt"])) as old,
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, bytes(10**8) if name.endswith("/0") else old.read(name))
    files = sealed(
        {**model_files, "training.pt": buffer.getvalue()}, json.loads(model_files["manifest.json"])
    )
    place = folder / str(uuid.uuid4())
    place.mkdir()
    for name, content in files.items():
        (place / name).write_bytes(content)

    with quickly(), pytest.raises(CheckpointError, match="larger than the file"):
        load_training_state(str(place))


# --- Latents ---


@pytest.fixture(scope="module")
def whole_latents(folder):
    means = torch.arange(6 * 2 * 8.0).reshape(6, 2, 2, 2, 2)
    path = folder / "latents"
    write_latents(str(path), means, means / 2, torch.arange(6) % 3, 0.5, 3, ["a", "b", "c"])
    return {path.name: path.read_bytes() for path in path.iterdir()}


def array_file(draw, content):
    """Writes an array with a header that may be wrong."""
    options = dict(
        descr=st.sampled_from(["<f4", "<f8", "<f2", ">f4", "<f16", "<i8", "|O", "|V9", "x", 7]),
        fortran_order=st.booleans(),
        shape=st.sampled_from([(6, 2, 2, 2, 2), (6,), (10**9,) * 2, (10**30,), (-1,), (0,), "x"]),
    )
    header = {name: draw(st.sampled_from(JUNK) | st.just(None)) for name in options}
    for name, values in options.items():
        if draw(st.integers(0, 5)):
            header[name] = draw(values)
    text = repr(header).encode("utf-8", "replace")
    data = content[128:]
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", min(len(text), 2**16 - 1)) + text + data


def mutate_latents(draw, whole):
    files = dict(whole)
    name = draw(st.sampled_from(sorted(whole)))
    arrays = [file for file in sorted(whole) if file.endswith(".npy")]
    kind = draw(st.sampled_from(["file", "swap", "conventions", "header", "pickle", "archive"]))
    if kind == "file":
        files[name] = damage(draw, files[name])
    elif kind == "swap":
        other = draw(st.sampled_from(sorted(whole)))
        files[name], files[other] = files[other], files[name]
    elif kind == "conventions":
        content = spoil(draw, json.loads(files["conventions.json"]))
        texts = st.just(json.dumps(content)) | st.sampled_from(["[" * 10**5, "", "NaN", '"x"'])
        files["conventions.json"] = draw(texts).encode()
    else:
        array = draw(st.sampled_from(arrays))
        buffer = io.BytesIO()
        if kind == "header":
            buffer.write(array_file(draw, files[array]))
        elif kind == "pickle":
            np.save(buffer, np.array([{}] * 6, dtype=object), allow_pickle=True)
        else:
            np.savez(buffer, np.zeros(6))
        files[array] = buffer.getvalue()
    return files


@pytest.mark.filterwarnings("ignore")  # Of numpy: odd headers.
@pytest.mark.parametrize("examples", EXAMPLES)
@pytest.mark.parametrize("root", ["disk", "memory"])
def test_fuzzed_latents_load_or_raise(folder, whole_latents, root, examples):
    outcomes = collections.Counter()

    def test(draw):
        name = str(uuid.uuid4())
        url = str(folder / name) if root == "disk" else f"memory://checkpoint-tests/{name}"
        for file, content in mutate_latents(draw, whole_latents).items():
            with fsspec.open(f"{url}/{file}", "wb", auto_mkdir=True) as opened:
                opened.write(content)
        with quickly():
            try:
                data = LatentFolder(url)
            except (ValueError, FileNotFoundError) as error:
                outcomes["refused"] += len(str(error)) > 0
                return
            outcomes["read"] += 1
            stored, labels = data.__getitems__(range(len(data)))
            assert len(data.class_names) == data.num_classes > labels.max()
            assert data.augment(stored, None).shape == (len(data), *data.latent_shape)

    search(examples, test)

    assert min(outcomes["refused"], outcomes["read"]) >= examples / 50, outcomes
