"""What all tests share: seeds, precision, the profile of hypothesis, and checked shapes."""

import logging
import os
import random
import signal
import uuid

os.environ["OMP_NUM_THREADS"] = "1"  # Also of the processes that tests start.

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import settings

# Shapes and types in the signatures of components are checked whenever a test calls them: this hook
# must come before any import of afmlib. Integers pass for floats, as in mypy. Not hooked are the
# packages that check their arguments themselves, with better messages, and are tested for it:
# networks, sampling, io, registry, config and cli.
jaxtyping.install_import_hook(
    ["afmlib.losses", "afmlib.nn", "afmlib.objectives", "afmlib.ops"],
    "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))",
)

settings.register_profile(
    "afmlib", derandomize=True, deadline=None, max_examples=25, database=None, print_blob=True
)
settings.load_profile("afmlib")

# A shell lets jobs in the background ignore Ctrl-C, and what tests start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

torch.set_num_threads(1)  # Sums have the same order on every machine.

LONGEST_FIRST = ["test_distribution.py", "test_docs.py", "test_kills.py", "test_signals.py"]
"""Files that take longer than 20 s. Begun last, they would keep one worker busy at the end."""


def pytest_xdist_auto_num_workers(config):
    """Uses one worker per core, at most 8. A single file runs without, so that --pdb works."""
    if len(config.args) == 1 and ".py" in config.args[0]:
        return 0
    has_affinity = hasattr(os, "sched_getaffinity")
    return min(8, len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1)


def pytest_collection_modifyitems(items):
    rank = {name: number for number, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: rank.get(item.path.name, len(rank)))


@pytest.fixture(autouse=True)
def seeds():
    """Seeds every global source of random numbers for a test, and puts them back."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        random.seed(0)
        np.random.seed(0)
        torch.manual_seed(0)
        yield
    random.setstate(python)
    np.random.set_state(numpy)


@pytest.fixture(autouse=True)
def signal_handlers():
    """Puts back the handlers of signals: a command that runs in this process keeps its own."""
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def float64():
    """Makes float64 the default of a module: ``pytestmark = pytest.mark.usefixtures("float64")``.

    A default for all tests would hide those places that mix up precisions.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture
def unchecked():
    """Takes the checks of signatures away, to see what the library itself says to a wrong type."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def s3_server():
    """Starts a server that speaks S3 on this machine, with the one bucket "bucket"."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", port=0)
    s3fs = pytest.importorskip("s3fs")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # It logs every request.
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        # By these alone a process reaches it: ours, and those that tests start.
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        variables = {key: value for key, value in os.environ.items() if key.startswith("AWS_")}
        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem().mkdir("bucket")
    yield variables
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


@pytest.fixture
def s3_folder(s3_server, monkeypatch):
    """The URL of a folder that is new to each test, on an object store of our own."""
    for name, value in s3_server.items():
        monkeypatch.setenv(name, value)
    return f"s3://bucket/{uuid.uuid4()}"
