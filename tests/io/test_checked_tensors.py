"""Tests for afmlib.io.checked_tensors."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save

from afmlib.io.checked_tensors import pack, unpack

TENSORS = {"a": torch.arange(5.0), "b": torch.ones(2, 0), "c": torch.tensor(3)}


def test_pack_unpack_roundtrip():
    again = unpack(pack(TENSORS))

    assert again.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert torch.equal(again[name], tensor)
        assert again[name].dtype == tensor.dtype


@given(st.integers(0, len(pack(TENSORS)) - 1), st.integers(1, 255))
def test_any_flipped_byte_raises(position, flip):
    content = bytearray(pack(TENSORS))
    content[position] ^= flip
    try:
        found = unpack(bytes(content))
    except ValueError:
        return
    # A blank of the header may become another blank.
    assert all(torch.equal(found[name], tensor) for name, tensor in TENSORS.items())


def test_missing_checksum_raises():
    for content in (b"", save(TENSORS), pack(TENSORS)[:-1]):
        with pytest.raises(ValueError, match="it is corrupt"):
            unpack(content)
