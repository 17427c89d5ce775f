"""Tests for afmlib.cli.check."""

import pytest

from afmlib.cli import main
from afmlib.registry import REGISTRIES
from afmlib.testing.contract import record_checks, require

GOOD = """
import torch
from torch import nn

from afmlib.data.digits import Digits
from afmlib.interfaces import AdversarialLoss, Discriminator, Metric, Number
from afmlib.objectives.flow_matching import FlowMatching
from afmlib.registry import DATASETS, DISCRIMINATORS, LOSSES, METRICS, OBJECTIVES

OBJECTIVES.register_module(name="GoodObjective", module=FlowMatching)
DATASETS.register_module(name="GoodDataset", module=Digits)


@DISCRIMINATORS.register_module()
class GoodDiscriminator(Discriminator):
    def __init__(self, input_size: int, in_channels: int, num_classes: int, width: int = 10**6):
        super().__init__()
        self.embeds_timestep = False
        self.body = nn.Sequential(
            nn.Flatten(), nn.Linear(in_channels * input_size**2, width), nn.Tanh()
        )
        self.classes = nn.Embedding(num_classes, width)

    def forward(self, latents, labels, timesteps=None):
        return (self.body(latents) * self.classes(labels)).sum(1)


@LOSSES.register_module()
class GoodLoss(AdversarialLoss):
    def discriminator_loss(self, logits_real, logits_fake):
        return nn.functional.softplus(logits_fake) + nn.functional.softplus(-logits_real)

    def generator_loss(self, logits_real, logits_fake):
        return nn.functional.softplus(-logits_fake)


@METRICS.register_module()
class GoodMetric(Metric):
    numbers = {"mean": Number("mean pixel", better=None)}

    def __call__(self, evaluation):
        return {"mean": float(evaluation.samples.mean())}
"""

BROKEN = """
import random

import torch
from torch import nn

from afmlib.data.digits import Digits
from afmlib.interfaces import AdversarialLoss, Discriminator, Metric, Number
from afmlib.registry import DATASETS, DISCRIMINATORS, LOSSES, METRICS, OBJECTIVES
from afmlib.objectives.flow_matching import FlowMatching


@OBJECTIVES.register_module()
class BrokenObjective(FlowMatching):
    def terms(self, *args, **kwargs):
        torch.randn(1)  # Not in the draws.
        return super().terms(*args, **kwargs)


@DATASETS.register_module()
class BrokenDataset(Digits):
    num_classes = 9


@DISCRIMINATORS.register_module()
class BrokenDiscriminator(Discriminator):
    def __init__(self, input_size: int):
        super().__init__()
        self.layer = nn.Linear(input_size**2, 1)

    def forward(self, latents, labels, timesteps=None):
        return self.layer(latents.flatten(1))  # Should be one number per sample.


@LOSSES.register_module()
class BrokenLoss(AdversarialLoss):
    def discriminator_loss(self, logits_real, logits_fake):
        return (logits_fake - logits_real).mean()

    def generator_loss(self, logits_real, logits_fake):
        return -logits_fake.mean()


@METRICS.register_module()
class BrokenMetric(Metric):
    numbers = {"random": Number("random number", better=None)}

    def __call__(self, evaluation):
        return {"random": random.random()}
"""

NEEDS = """
from afmlib.interfaces import Schedule
from afmlib.losses.hinge import HingeLoss
from afmlib.registry import LOSSES


@LOSSES.register_module()
class NeedyLoss(HingeLoss):
    def __init__(self, slope: float, margin: float = 1.0):
        super().__init__(margin)
        if slope <= 0:
            raise ValueError(f"slope must be positive, got {slope}.")
"""

COMPONENTS = ("Objective", "Dataset", "Discriminator", "Loss", "Metric")


@pytest.fixture(autouse=True)
def _registrations():
    """Undoes what the files register."""
    before = {group: dict(registry._module_dict) for group, registry in REGISTRIES.items()}
    yield
    for group, registry in REGISTRIES.items():
        for name in set(registry._module_dict) - set(before[group]):
            del registry._module_dict[name], registry._origins[name]


@pytest.fixture
def check(tmp_path, capsys):
    """Runs ``afmlib check``; returns its status, its lines by component, and its errors."""

    def run(source, *options):
        path = tmp_path / "mine.py"
        path.write_text(source)
        status = main(["check", str(path), *options])
        output = capsys.readouterr()
        lines = dict(line.split(": ", 1) for line in output.out.splitlines())
        return status, lines, output.err

    return run


def test_good_components(check):
    status, lines, _ = check(GOOD)

    assert status == 0
    assert set(lines) == {f"Good{name}" for name in COMPONENTS}
    for line in lines.values():
        count = int(line.removeprefix("ok (").removesuffix(" checks)"))
        assert count >= 3


LAWS = {
    "BrokenObjective": "terms",
    "BrokenDataset": "num_classes is at least 1, with one of class_names each",
    "BrokenDiscriminator": "a discriminator returns one logit per sample",
    "BrokenLoss": "one",
    "BrokenMetric": "a metric returns the same numbers for the same evaluation",
}


def test_broken_components(check):
    status, lines, _ = check(BROKEN)

    assert status == 1
    assert set(lines) == set(LAWS)
    for name, law in LAWS.items():
        assert lines[name].startswith("broken: "), lines[name]
        assert law in lines[name]


def test_missing_arguments(check):
    status, lines, _ = check(NEEDS)

    assert status == 1
    assert "NeedyLoss needs the argument 'slope'" in lines["NeedyLoss"]
    assert "--set NeedyLoss.ARG=VALUE. It takes: slope, margin." in lines["NeedyLoss"]


def test_arguments_of_components(check):
    status, lines, _ = check(NEEDS, "--set", "NeedyLoss.slope=1", "--set", "NeedyLoss.margin=2")

    assert (status, list(lines)) == (0, ["NeedyLoss"])

    status, lines, _ = check(NEEDS, "--set", "NeedyLoss.slope=-1")

    assert status == 1
    assert "slope must be positive, got -1" in lines["NeedyLoss"]


def test_arguments_of_nested_components(check):
    status, lines, _ = check(GOOD, "--set", "GoodObjective.generator.type=MLPGenerator")

    assert status == 1  # An MLP takes points, not images.
    assert lines["GoodLoss"].startswith("ok")


@pytest.mark.parametrize(
    ("source", "options", "status", "message"),
    [
        ("x = 1", [], 2, "registers no component"),
        ("1 / 0", [], 2, "cannot be run: ZeroDivisionError"),
        (NEEDS, ["--set", "NeedyLos.slope=1"], 2, "Did you mean 'NeedyLoss'?"),
        (NEEDS, ["--set", "NeedyLoss=1"], 2, "NAME.ARG=VALUE"),
    ],
)
def test_mistakes(source, options, status, message, check):
    found, _, error = check(source, *options)

    assert found == status
    assert message in error
    assert error.count("\n") == 1


def test_debug_shows_the_traceback(check):
    assert "Traceback" in check(NEEDS, "--debug")[2]


def test_recorded_checks():
    with record_checks() as checks:
        require(True, 0, "one")
        with pytest.raises(AssertionError, match="int: two; 3"):
            require(False, 0, "two", "3")
    require(True, 0, "three")

    assert checks == {"one", "two"}
