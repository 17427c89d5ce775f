"""A small checkpoint for the tests of afmlib.io."""

import fsspec
import pytest
import torch

from afmlib.io.checkpoint import save_checkpoint


@pytest.fixture(scope="module", autouse=True)
def memory():
    """Empties the part of the memory file system that these tests use."""
    yield
    files = fsspec.filesystem("memory")
    if files.exists("/checkpoint-tests"):
        files.rm("/checkpoint-tests", recursive=True)


@pytest.fixture(scope="session")
def networks():
    """What the checkpoint holds of each network."""
    stream = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(3, 4, generator=stream), torch.randn(3, generator=stream)
    return {
        "generator": {"weight": weight, "bias": bias.bfloat16()},
        "discriminator": {"average": torch.tensor(0.25, dtype=torch.float64)},
    }


@pytest.fixture(scope="session")
def save(networks):
    """Writes the checkpoint to a folder."""
    training = {
        "num_images": 100,
        "rng": torch.arange(5),
        "nested": {"betas": (0.0, 0.9), "ok": None},
    }

    def write(folder):
        save_checkpoint(str(folder), networks, training, "seed: 0\n", {"num_images": 100})

    return write


def bits(tensor):
    return tensor.contiguous().reshape(-1).view(torch.uint8).tolist()


@pytest.fixture(scope="session")
def assert_same_tensors():
    """Compares two state dicts bit by bit."""

    def check(state, expected):
        assert set(state) == set(expected)
        for name, tensor in expected.items():
            assert state[name].dtype == tensor.dtype
            assert state[name].shape == tensor.shape
            assert bits(state[name]) == bits(tensor)

    return check
