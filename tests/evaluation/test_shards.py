"""Tests for afmlib.evaluation.shards."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from afmlib.evaluation import shards as module
from afmlib.evaluation.shards import Shards


def record(rows):
    numbers = torch.tensor(rows, dtype=torch.float32)
    return {"features": numbers[:, None] ** 2, "samples": numbers.reshape(-1, 1, 1, 1)}


@given(st.permutations(range(0, 40, 4)), st.integers(1, 30), st.integers(0, 10))
def test_rows_are_sorted(tmp_path_factory, starts, size, stop):
    folder = str(tmp_path_factory.mktemp("parts"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SHARD_SIZE", size)
        first = Shards(folder)
        for start in starts[:stop]:
            first.add(range(start, start + 4), record(range(start, start + 4)))
        first.close()
        second = Shards(folder)
        second.load()
        assert sorted(second.done()) == sorted(r for s in starts[:stop] for r in range(s, s + 4))
        for start in starts[stop:]:
            second.add(range(start, start + 4), record(range(start, start + 4)))

    for name, rows in record(range(40)).items():
        assert torch.equal(second.all()[name], rows)
    assert first.is_empty() == (stop == 0 and second.num_written == 0)
    second.remove()
    assert second.is_empty()


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    parts = Shards()
    parts.add(range(2000), record(range(2000)))
    parts.close()
    parts.remove()

    assert parts.is_empty()
    assert len(parts.all()["features"]) == 2000
    assert not list(tmp_path.iterdir())
