"""Tests for afmlib.engine.compatibility: what is found before the first step."""

import shutil
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import torch

from afmlib import load_checkpoint, sample
from afmlib.config import ConfigError
from afmlib.engine import Runner
from afmlib.engine.same_run import check_same_run
from afmlib.interfaces import Generator
from afmlib.io.checkpoint import CheckpointError, read_config, read_manifest
from afmlib.objectives.flow_matching import FlowMatching
from afmlib.parameterizations import InstantaneousVelocity
from afmlib.registry import OBJECTIVES, PARAMETERIZATIONS


def parameterized(parameterization):
    """Registers flow matching with another parameterization, and returns its name."""
    name = f"_{parameterization.__name__}Flow"

    class Flow(FlowMatching):
        def __init__(self, generator: Generator, nfe: int = 2):
            super().__init__(generator, nfe)
            self.parameterization = parameterization(0.5)

    if name not in OBJECTIVES.components():
        OBJECTIVES.register_module(name=name)(Flow)
    return name


class Shrunk(InstantaneousVelocity):
    """Multiplies velocities by a number."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, generator, latents, labels, timesteps_src, timesteps_tgt):
        made = super().forward(generator, latents, labels, timesteps_src, timesteps_tgt)
        return latents + self.factor * (made - latents)


class Forgetful(Shrunk):
    """Does not keep its argument under its name."""

    def __init__(self, factor):
        super().__init__(factor)
        self.share = self.__dict__.pop("factor")


class Ranged(InstantaneousVelocity):
    """Has an argument that JSON stores as a list."""

    def __init__(self, low, interval=(0.0, 1.0)):
        super().__init__()
        self.low, self.interval = low, interval


def test_parameterization_with_a_tuple_resumes(run):
    if "Ranged" not in PARAMETERIZATIONS.components():
        PARAMETERIZATIONS.register_module()(Ranged)
    kind = f"objective.type={parameterized(Ranged)}"
    run(kind, "num_images=8", name="flow_matching_digits")

    runner = run(kind, "num_images=16", name="flow_matching_digits", resume=True)

    assert runner.objective.num_images == 16


def test_parameterization_with_arguments_survives_a_checkpoint(run, tmp_path):
    if "Shrunk" not in PARAMETERIZATIONS.components():
        PARAMETERIZATIONS.register_module()(Shrunk)
    runner = run(f"objective.type={parameterized(Shrunk)}", name="flow_matching_digits")

    loaded = load_checkpoint(str(tmp_path / "run"))

    assert loaded.parameterization.factor == 0.5
    assert loaded.conventions == runner.objective.sample_model.conventions
    assert torch.equal(sample(loaded, [0, 1]), sample(runner.objective, [0, 1]))
    assert not torch.equal(sample(loaded, [0, 1], nfe=1), sample(loaded, [0, 1], nfe=4))


@pytest.mark.parametrize("is_registered", [False, True])
def test_unloadable_parameterization_raises_before_training(run, tmp_path, is_registered):
    kind = Forgetful
    if is_registered and "Forgetful" not in PARAMETERIZATIONS.components():
        PARAMETERIZATIONS.register_module()(Forgetful)
    message = "must keep its argument 'factor'" if is_registered else "There is no 'Forgetful'"

    with pytest.raises(ConfigError, match=message):
        run(f"objective.type={parameterized(kind)}", name="flow_matching_digits")

    assert not (tmp_path / "run").exists()


def test_added_term_with_micro_batches(run, tmp_path):
    class Extended(OBJECTIVES.get("AdversarialFlow")):
        def generator_terms(self, latents, labels, draws):
            terms = super().generator_terms(latents, labels, draws)
            terms["mine"] = 0.1 * self._generate(latents, labels, draws).samples.square().mean()
            return terms

    if "_Extended" not in OBJECTIVES.components():
        OBJECTIVES.register_module(name="_Extended")(Extended)
    logs, states = [], []
    for micro_batch in (8, 4):
        runner = run(
            "objective.type=_Extended",
            f"micro_batch={micro_batch}",
            "objective.gp_fraction=0.5",
            "precision=float64",
            "log.every=8",
            work_dir=tmp_path / str(micro_batch),
        )
        logs.append((tmp_path / str(micro_batch) / "log.jsonl").read_text())
        states.append(runner.objective.state_dict())

    assert all(log.count("generator/mine") == log.count("generator/transport") for log in logs)
    for name, value in states[0].items():
        torch.testing.assert_close(value, states[1][name], rtol=1e-9, atol=1e-9, msg=name)


def test_extractor_of_wrong_shape_raises(tiny_config, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (40, 28, 28, 1), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", images=images, labels=np.arange(40) % 10)
    config = tiny_config(
        "afm_digits",
        f"data={{type: ImageArchive, path: {tmp_path / 'images.npz'}}}",
        "objective.generator.patch_size=7",
        "objective.discriminator.patch_size=7",
        "evaluation.extractor=DigitsExtractor",
        "evaluation.metrics=[FrechetDistance]",
    )

    with pytest.raises(ConfigError, match=r"evaluation\.extractor.*28"):
        Runner(config, tmp_path / "run", device="cpu")

    assert not (tmp_path / "run").exists()


def test_full_disk_raises_before_training(run, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))

    with pytest.raises(ConfigError, match=r"A checkpoint of this run takes .* MiB, and"):
        run()

    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("override", "name"), [("input_size=16", "latent_shape"), ("num_classes=5", "num_classes")]
)
def test_incompatible_networks_raise(run, override, name):
    with pytest.raises(ValueError, match=f"The generator's {name} is"):
        run(f"objective.discriminator.{override}")


def test_run_with_old_names_is_the_same_run(tiny_config, tmp_path):
    config = tiny_config("consistency_digits", "num_images=8")
    runner = Runner(config, tmp_path / "run", device="cpu")
    runner.train()
    folder = runner.last_checkpoint
    manifest = read_manifest(folder)
    new = read_config(folder)
    old = new.replace("discretization", "discretisation").replace("log_std", "log_deviation")
    assert old != new

    with mock.patch("afmlib.engine.same_run.read_config", return_value=old):
        check_same_run(folder, runner.full_config, manifest)


def test_switching_off_an_absent_guidance_changes_nothing(run, tmp_path):
    run("phases=[{at: 0, guidance: false, augmentation: false}]")
    with pytest.raises(ConfigError, match="no setting 'guidance'"):
        run("phases=[{at: 8, guidance: true}]", work_dir=tmp_path / "other")


def test_stored_updates_of_another_type_are_another_run(run):
    runner = run()
    folder = runner.last_checkpoint
    stored = read_config(folder) + "updates: 5\n"

    with (
        mock.patch("afmlib.engine.same_run.read_config", return_value=stored),
        pytest.raises(CheckpointError, match="its updates is 5, not"),
    ):
        check_same_run(folder, runner.full_config, read_manifest(folder))
