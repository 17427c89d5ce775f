"""A tiny run for the tests of the engine."""

import pytest

from afmlib.config import load_config
from afmlib.engine import Runner

TINY = [
    "objective.generator.hidden_size=16",
    "objective.generator.depth=1",
    "objective.discriminator.hidden_size=16",
    "objective.discriminator.depth=1",
    "global_batch=8",
    "num_images=64",
    "evaluation.metrics=[]",
    "evaluation.extractor=null",
    "checkpoint_every=null",
    "sample_every=null",
]


@pytest.fixture
def tiny_config():
    """Makes a config of a few updates of small networks on the digits."""

    def make(name="afm_digits", *overrides):
        tiny = TINY
        if not name.startswith(("afm", "gan")):  # The others have no discriminator.
            tiny = [override for override in tiny if "discriminator" not in override]
        if "gaussians" in name:
            tiny = [override for override in tiny if "depth" not in override]
        return load_config(name, [*tiny, *overrides])

    return make


@pytest.fixture
def run(tiny_config, tmp_path):
    """Trains a tiny run and returns its runner."""

    def train(*overrides, name="afm_digits", work_dir=None, **options):
        config = tiny_config(name, *overrides)
        runner = Runner(config, work_dir or tmp_path / "run", device="cpu", **options)
        runner.train()
        return runner

    return train
