"""Tests for afmlib.engine.json_lines."""

import json

import fsspec
import pytest

from afmlib.engine import json_lines
from afmlib.engine.json_lines import JsonLines
from afmlib.io import storage
from afmlib.io.checkpoint import CheckpointError


@pytest.fixture(params=["local", "memory", "s3"])
def path(request, tmp_path):
    """A file on each kind of file system."""
    if request.param == "s3":
        yield storage.join(request.getfixturevalue("s3_folder"), "log.jsonl")
    elif request.param == "memory":
        yield "memory://json-lines/log.jsonl"
        fsspec.filesystem("memory").store.clear()
    else:
        yield str(tmp_path / "log.jsonl")


def content(path):
    return [json.loads(line) for line in storage.read_bytes(path).decode().splitlines()]


def test_flush_writes_all_entries(path):
    file = JsonLines(path)
    for num_images in (1, 2):
        file.append({"num_images": num_images, "loss": 0.5})
    file.flush()

    assert content(path) == [{"num_images": 1, "loss": 0.5}, {"num_images": 2, "loss": 0.5}]
    assert file.images() == {1, 2}


def test_truncate_then_append(path):
    file = JsonLines(path)
    for num_images in (8, 16, 24):
        file.append({"num_images": num_images})
    file.flush()
    again = JsonLines(path)
    again.truncate(16)
    again.append({"num_images": 32})
    again.flush()

    assert [entry["num_images"] for entry in content(path)] == [8, 16, 32]


BAD = ['{"num_im', '"text"', "[1]", '{"loss": 1}', "\0\0\0"]
BAD += [f'{{"num_images": {value}}}' for value in ("1e999", "true", "16.5", "NaN", '"9"')]


@pytest.mark.parametrize("torn", [*BAD, "[" * 100_000])
def test_torn_last_line_is_removed(tmp_path, torn):
    path = tmp_path / "log.jsonl"
    path.write_text('{"num_images": 8}\n' + torn)

    file = JsonLines(str(path))
    file.truncate(100)
    file.append({"num_images": 16})

    assert [entry["num_images"] for entry in content(str(path))] == [8, 16]


@pytest.mark.parametrize("bad", BAD)
def test_bad_line_before_others_is_named(tmp_path, bad):
    path = tmp_path / "log.jsonl"
    path.write_text(f'{{"num_images": 8}}\n{bad}\n{{"num_images": 24}}\n')

    with pytest.raises(CheckpointError, match=rf"{path}, line 2 is not an entry"):
        JsonLines(str(path)).truncate(24)

    JsonLines(str(path)).truncate(16)  # The line is after the entries that are kept.
    assert content(str(path)) == [{"num_images": 8}]


def test_object_store_uploads_at_intervals(monkeypatch):
    now = 0.0
    monkeypatch.setattr(json_lines.time, "monotonic", lambda: now)
    path = "memory://json-lines-upload/log.jsonl"
    file = JsonLines(path)
    file.append({"num_images": 8})
    assert not storage.exists(path)

    now = 31.0
    file.append({"num_images": 16})

    assert len(content(path)) == 2


def test_log_is_a_plain_file_of_limited_size(tmp_path, monkeypatch):
    path = tmp_path / "log.jsonl"
    path.symlink_to("/dev/null")  # /dev/full would have no end.
    with pytest.raises(OSError, match=r"log\.jsonl is a device, not a plain file"):
        JsonLines(str(path)).truncate(100)

    path.unlink()
    path.write_text('{"num_images": 1}\n' * 10)
    monkeypatch.setattr(json_lines, "MAX_LOG", 100)
    with pytest.raises(ValueError, match=r"log\.jsonl has 180 bytes, and at most 100 are read"):
        JsonLines(str(path)).truncate(100)
