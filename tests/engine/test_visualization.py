"""Tests for afmlib.engine.hooks.log."""

import sys
import types

import numpy as np
import pytest

from afmlib.config import ConfigError, LogConfig
from afmlib.engine.hooks.log import visualization_backends


@pytest.fixture
def wandb(monkeypatch):
    """A stand-in for W&B that keeps what it is told."""
    module = types.ModuleType("wandb")
    module.__spec__ = types.SimpleNamespace()
    module.told = []
    module.init = lambda **options: module.told.append(("init", options))
    module.define_metric = lambda **options: module.told.append(("define", options))
    module.log = lambda values, **options: module.told.append(("log", values))
    module.finish = lambda: module.told.append(("finish", None))
    module.Image = lambda image: ("image", image.shape)
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def test_wandb_gets_scalars_and_pictures(run, wandb, tmp_path):
    run("log.wandb=my-project", "log.every=32", "evaluation.metrics=[Diversity]")

    (_, init), *rest = wandb.told
    assert init["project"] == "my-project"
    assert ("define", {"name": "*", "step_metric": "num_images"}) in rest
    logged = [values for kind, values in rest if kind == "log"]
    assert [values["num_images"] for values in logged] == [32, 64, 64, 64]
    assert "generator/transport" in logged[0]
    assert {"samples", "num_images"} in [set(values) for values in logged]
    assert any("evaluation/diversity" in values for values in logged)
    assert rest[-1] == ("finish", None)


def test_tensorboard_gets_scalars_and_pictures(run, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run("log.tensorboard=true", "log.every=32")

    events = EventAccumulator(str(tmp_path / "run/tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("generator/transport")] == [32, 64]
    assert [event.step for event in events.Images("samples")] == [64]


@pytest.mark.parametrize("name", ["wandb", "tensorboard"])
def test_missing_package_names_its_extra(name, monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda package: None)
    config = LogConfig(tensorboard=name == "tensorboard", wandb="x" if name == "wandb" else None)

    with pytest.raises(ConfigError, match=rf"log.{name} needs {name}: .*afmlib\[{name}\]"):
        visualization_backends(config, str(tmp_path), "run")


def test_nothing_is_written_by_default():
    assert visualization_backends(LogConfig(), None, "run") == []


def test_backend_picture_equals_the_file(run, wandb, tmp_path):
    run("log.wandb=my-project")
    from PIL import Image

    shape = np.asarray(Image.open(tmp_path / "run/samples/000000064.png").convert("RGB")).shape
    pictures = [values["samples"] for kind, values in wandb.told if "samples" in (values or {})]
    assert pictures == [("image", shape)]
