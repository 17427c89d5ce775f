"""One comparison of tiny contenders, which many tests look at."""

import contextlib
import io
import json
import sys
from types import SimpleNamespace

import pytest

from afmlib.registry import REGISTRIES
from benchmarks import run

PLUGIN = """
import os
from typing import ClassVar

from torch import nn

from afmlib.interfaces import Discriminator, Metric, Number
from afmlib.objectives.flow_matching import FlowMatching
from afmlib.registry import DISCRIMINATORS, METRICS, OBJECTIVES


@DISCRIMINATORS.register_module()
class MyDiscriminator(Discriminator):
    def __init__(self, input_size: int, in_channels: int, num_classes: int):
        super().__init__()
        size = in_channels * input_size**2
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(size, num_classes))

    def forward(self, latents, labels, timesteps=None):
        return self.layers(latents).gather(1, labels[:, None]).squeeze(1)


@DISCRIMINATORS.register_module()
class NotFinite(MyDiscriminator):
    def forward(self, latents, labels, timesteps=None):
        return super().forward(latents, labels) / 0


@DISCRIMINATORS.register_module()
class Dying(MyDiscriminator):
    def forward(self, latents, labels, timesteps=None):
        if latents.device.type != "meta":
            os._exit(7)
        return super().forward(latents, labels)


@OBJECTIVES.register_module()
class MyObjective(FlowMatching):
    pass


@METRICS.register_module()
class Darkness(Metric):
    numbers: ClassVar = {"darkness": Number("my darkness", "lower")}
    requires = frozenset({"samples"})

    def __call__(self, evaluation):
        return {"darkness": -evaluation.need_samples().mean().item()}
"""
CONFIG = """
_base_: scales/digits
objective: {type: MyObjective, generator: {use_timestep_src: true}}
"""
SMALL = (
    "objective.generator.hidden_size=8:objective.generator.num_heads=1:objective.generator.depth=1"
    ":global_batch=8:evaluation.num_samples=100:evaluation.metrics=[FrechetDistance,Darkness]"
)
AFM = f"afm_digits:{SMALL}:objective.discriminator.type="


@contextlib.contextmanager
def forgotten_plugins():
    """Unregisters the plugin files that are loaded in the block."""
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        for registry in REGISTRIES.values():
            registry.forget(name)
        if str(getattr(sys.modules[name], "__file__", "")).endswith("mine.py"):
            del sys.modules[name]


@pytest.fixture(scope="session")
def comparison(tmp_path_factory):
    """One run with contenders that work, fail, die and lack their data."""
    folder = tmp_path_factory.mktemp("comparison")
    (folder / "mine.py").write_text(PLUGIN)
    (folder / "mine.yaml").write_text(CONFIG)
    contenders = [
        f"mine.yaml:{SMALL}:objective.nfe=3",
        f"{AFM}MyDiscriminator",
        f"{AFM}Dying",
        f"{AFM}NotFinite",
        f"afm_digits:{SMALL}:objective.generator.patch_size=3",
        "afm_b2:objective.generator.depth=1:objective.discriminator.depth=1",
        "classifier_digits:objective.classifier.hidden_size=8:objective.classifier.num_heads=1",
    ]
    argv = [*contenders, "--budget", "16img", "--slice", "0.1", "--plugin", "mine.py"]
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, forgotten_plugins():
        patch.chdir(folder)
        patch.setenv("COLUMNS", "120")
        with contextlib.redirect_stdout(printed):
            status = run.main([*argv, "--out", "out", "--patience", "0.01"])
    out = folder / "out"
    return SimpleNamespace(
        status=status,
        printed=printed.getvalue(),
        out=out,
        plugin=folder / "mine.py",
        results=json.loads((out / "results.json").read_text()),
    )


@pytest.fixture
def plugin(comparison):
    """The plugin file of the comparison, unregistered afterwards."""
    with forgotten_plugins():
        yield str(comparison.plugin)
