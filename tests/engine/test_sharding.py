"""Tests for hybrid sharding and mixed precision: four processes do what one does."""

import compiled_shards
import four_processes
import pytest
import torch
import two_processes
from forks import run_together


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sharding")


@pytest.fixture(scope="module")
def of_four(folder):
    """The results of all experiments in each of four processes, on two machines."""
    run_together(folder, four_processes.everything, str(folder), size=4, local=2)
    return [torch.load(folder / f"results-{rank}.pt") for rank in range(4)]


def test_hybrid_sharding_matches_one_process(of_four, folder):
    one = two_processes.gradients("afm", folder / "one")

    for four in of_four:
        for whole, shared in zip(one["gradients"], four["hybrid"]["gradients"], strict=True):
            torch.testing.assert_close(shared, whole, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(four["hybrid"]["state"], one["state"], rtol=1e-12, atol=1e-12)


def test_blocks_are_gathered_in_half_precision(of_four, folder, monkeypatch):
    monkeypatch.setattr("afmlib.engine.runner.cpu_has_bfloat16", lambda: True)  # Slow, but right.
    one = two_processes.gradients("flow", folder / "one-half", four_processes.HALF)

    for four in of_four:
        # The penalty of the discriminator needs whole weights.
        assert four["dtypes"] == [{None}, {torch.bfloat16, None}]
        assert four["half"]["state"]["generator.blocks.0.mlp.fc1.weight"].dtype == torch.float32
        for whole, shared in zip(one["gradients"], four["half"]["gradients"], strict=True):
            for name, gradient in whole.items():
                error = torch.linalg.vector_norm(shared[name] - gradient)
                assert error <= 0.03 * torch.linalg.vector_norm(gradient) + 1e-6


def test_machines_of_different_size_are_refused(of_four):
    assert "needs the same number of processes on each machine, got 4" in of_four[0]["uneven"]


def test_compiled_blocks_have_no_graph_breaks_under_fsdp(tmp_path):
    run_together(tmp_path, compiled_shards.count_breaks, str(tmp_path), size=2)

    for rank in range(2):
        assert torch.load(tmp_path / f"compiled-{rank}.pt") == ({}, 1)
