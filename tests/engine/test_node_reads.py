"""Tests for afmlib.engine.node_reads."""

import torch
from forks import run_together
from look_together import read_together

from afmlib.engine.node_reads import read_on_node

DATA = {
    "double": torch.arange(6.0).reshape(2, 3).T,
    "some": {0: torch.tensor(True), 3: {"x": torch.randn(4).to(torch.bfloat16)}},
    "empty": torch.zeros(0, 2),
    "plain": [1, "a", None],
}


def equal(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other) and one.dtype == other.dtype
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    return one == other


def test_one_process_reads_for_all(tmp_path):
    torch.save(DATA, tmp_path / "data.pt")

    run_together(tmp_path, read_together, str(tmp_path / "data.pt"), str(tmp_path / "results"))

    first, second = (torch.load(tmp_path / f"results-{rank}.pt") for rank in range(2))
    for found, paths, _, failure in (first, second):
        assert equal(found, {**DATA, "double": 2 * DATA["double"]})
        assert paths == [("double",), ("some", 0), ("some", 3, "x"), ("empty",)]
        assert "data.pt.missing" in failure
    assert [first[2], second[2]] == [2, 0]


def test_single_process_reads_itself():
    found = read_on_node(lambda: DATA, lambda path, tensor: -tensor if path[-1] == "x" else tensor)

    assert torch.equal(found["some"][3]["x"], -DATA["some"][3]["x"])
    assert found["plain"] == DATA["plain"]
