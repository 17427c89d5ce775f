"""A small checkpoint for the tests of afmlib.io, and a web server."""

import functools
import http.server
import threading

import fsspec
import pytest
import torch

from afmlib.interfaces import Conventions
from afmlib.io.checkpoint import save_checkpoint
from afmlib.networks.dit import DiTGenerator


@pytest.fixture(scope="module", autouse=True)
def memory():
    """Empties the part of the memory file system that these tests use."""
    yield
    files = fsspec.filesystem("memory")
    for folder in ("/checkpoint-tests", "/storage-tests"):
        if files.exists(folder):
            files.rm(folder, recursive=True)


@pytest.fixture(scope="session")
def networks():
    """The stored tensors of each network."""
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
        name = str(folder).rsplit("/", 1)[-1]
        manifest = {"num_images": int(name) if name.isdecimal() else 100}
        save_checkpoint(str(folder), networks, training, "seed: 0\n", manifest)

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


@pytest.fixture(scope="session")
def model_files(tmp_path_factory):
    """The files of a checkpoint that can be sampled from, by name."""
    folder = tmp_path_factory.mktemp("model")
    tiny = dict(input_size=4, in_channels=2, hidden_size=8, depth=1, num_heads=2, num_classes=3)
    weights = DiTGenerator(**tiny).state_dict()
    conventions = Conventions("AdversarialFlow", "SamplePrediction", 1, False, 3, (2, 4, 4))
    manifest = {
        "num_images": 64,
        "conventions": conventions.as_dict(),
        "generator": {"type": "DiTGenerator", **tiny},
        "plugins": [],
    }
    training = {"seen": {"generator": 64}, "moments": torch.arange(20.0), "betas": (0.0, 0.9)}
    networks = {"generator": weights, "generator_ema": weights}
    save_checkpoint(str(folder), networks, training, "seed: 0\n", manifest)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder and says nothing."""

    def log_message(self, *_):
        pass


@pytest.fixture
def web(tmp_path):
    """The URL of a web server on this machine, which shows the folder of the test."""
    pytest.importorskip("aiohttp")
    handler = functools.partial(QuietHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()
