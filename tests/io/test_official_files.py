"""Tests for afmlib.io.official_files."""

import os
import pickle
import zipfile

import official_layout as layout
import pytest
import torch
from safetensors.torch import save_file

from afmlib.io.checked_files import CheckpointError
from afmlib.io.official_files import (
    is_weights_file,
    read_official,
    read_state_dict,
    write_state_dict,
)

STATE = layout.random_state(layout.generator(**layout.TINY))


def same(one, other):
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


def test_state_dict_roundtrip(tmp_path):
    path = str(tmp_path / "model.pth")

    write_state_dict(path, STATE)

    assert same(read_state_dict(path), STATE)
    assert same(torch.load(path, weights_only=True), STATE)


def test_safetensors(tmp_path):
    save_file(STATE, tmp_path / "model.safetensors")

    found = read_state_dict(str(tmp_path / "model.safetensors"))

    assert set(found) == set(STATE)
    assert all(torch.equal(found[name], STATE[name]) for name in STATE)


class Malicious:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (self.mark,)


def test_code_is_not_run(tmp_path):
    mark = str(tmp_path / "was-run")
    torch.save({**STATE, "x": Malicious(mark)}, tmp_path / "zip.pth")
    torch.save({"x": Malicious(mark)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    (tmp_path / "pickle.pth").write_bytes(pickle.dumps({"x": Malicious(mark)}))

    for name in ("zip.pth", "old.pth", "pickle.pth"):
        with pytest.raises(CheckpointError, match=rf"{name} (is corrupt|is in)") as error:
            read_official(str(tmp_path / name))
        assert "weights_only" not in str(error.value)  # No advice to load it all the same.
    assert not os.path.exists(mark)


def test_error_names_global(tmp_path):
    torch.save({"x": Malicious("anything")}, tmp_path / "bad.pth")

    with pytest.raises(CheckpointError, match=r"bad\.pth .*asks for \w+\.mkdir$"):
        read_state_dict(str(tmp_path / "bad.pth"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"weights": STATE, "step": 3}, "is not a plain state dict: 'weights' is a dict"),
        ([STATE], "holds a list"),
        ({1: torch.zeros(2)}, "is not a plain state dict: '1' is a Tensor"),
        ({"x": torch.zeros(2, dtype=torch.long)}, r"x is torch\.int64"),
        ({"x": torch.zeros(2), "y": torch.zeros(2).half()}, "mixes dtypes"),
    ],
)
def test_invalid_state_dict_raises(content, message, tmp_path):
    torch.save(content, tmp_path / "model.pth")

    with pytest.raises(CheckpointError, match=message):
        read_state_dict(str(tmp_path / "model.pth"))


def test_corrupt_file_raises(tmp_path):
    write_state_dict(str(tmp_path / "model.pth"), STATE)
    whole = (tmp_path / "model.pth").read_bytes()
    for content in (b"", b"text", whole[: len(whole) // 2], whole[:100], b"PK\x03\x04"):
        (tmp_path / "model.pth").write_bytes(content)
        with pytest.raises(CheckpointError, match=r"model\.pth .*corrupt"):
            read_state_dict(str(tmp_path / "model.pth"))
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.pkl", bytes(10**6))
    with pytest.raises(CheckpointError, match="larger than the file"):
        read_state_dict(str(tmp_path / "bomb.pth"))


def test_legacy_torch_format_raises(tmp_path):
    torch.save(STATE, tmp_path / "model.pth", _use_new_zipfile_serialization=False)

    with pytest.raises(CheckpointError, match=r"model\.pth is in the old format.*save it again"):
        read_state_dict(str(tmp_path / "model.pth"))


def test_missing_file_raises(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_state_dict(str(tmp_path / "nowhere.pth"))


def test_is_weights_file():
    assert is_weights_file("hf://a/b/xl2_1nfe.pth")
    assert is_weights_file("X.SAFETENSORS")
    assert not is_weights_file("runs/afm_digits")
    assert not is_weights_file("runs/a.pth/checkpoints/0064")
