"""Tests for the functions of a notebook: train, evaluate, sample, save_grid, load_checkpoint."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook

from afmlib import (
    build_discriminator,
    evaluate,
    load_checkpoint,
    load_config,
    load_official,
    sample,
    train,
)
from afmlib.cli import main
from afmlib.config import ConfigError, check_protocol
from afmlib.interfaces import SampleModel
from afmlib.io.checkpoint import CheckpointError
from afmlib.io.lock import only_writer

TINY = {
    "objective.generator.hidden_size": 16,
    "objective.generator.depth": 1,
    "objective.discriminator.hidden_size": 16,
    "objective.discriminator.depth": 1,
    "global_batch": 8,
    "num_images": 64,
    "log.every": 16,
    "evaluation.metrics": ["Diversity"],
    "evaluation.extractor": None,
    "evaluation.num_samples": 20,
    "checkpoint_every": None,
    "sample_every": None,
}


NETWORK = dict(
    input_size=8, patch_size=2, in_channels=1, hidden_size=16, depth=1, num_heads=4, num_classes=10
)


class Counting(Hook):
    count = 0

    def after_train_iter(self, runner, *args, **kwargs):
        self.count += 1


@pytest.fixture(scope="module")
def calls():
    return []


@pytest.fixture(scope="module")
def hook():
    return Counting()


@pytest.fixture(scope="module")
def run(tmp_path_factory, calls, hook):
    folder = tmp_path_factory.mktemp("api") / "run"
    record = lambda *entry: calls.append(entry)
    return train("afm_digits", folder, TINY, callbacks=[record, hook], device="cpu", progress=False)


# --- train ---


def test_run_holds_model_log_and_evaluations(run):
    assert isinstance(run.model, SampleModel)
    assert run.checkpoint.startswith(f"{run.work_dir}/checkpoints/")
    assert [entry["num_images"] for entry in run.log] == [16, 32, 48, 64]
    assert [entry["num_images"] for entry in run.evaluations] == [64]
    assert torch.equal(sample(run.model, [0, 1]), sample(load_checkpoint(run.work_dir), [0, 1]))
    assert len(repr(run)) < 400


def test_callbacks_get_each_log_entry(run, calls, hook):
    assert [{"num_images": images, **numbers} for images, numbers in calls] == run.log
    assert all("generator/lr" in numbers for _, numbers in calls)
    assert hook.count == 8


def test_interrupted_run_resumes(run, tmp_path):
    def interrupt(num_images, numbers):
        seen.append(num_images)
        if len(seen) == 3:
            raise KeyboardInterrupt

    seen, config = [], {**TINY, "checkpoint_every": 32}
    options = dict(device="cpu", progress=False, callbacks=[interrupt])
    with pytest.raises(KeyboardInterrupt):
        train("afm_digits", tmp_path, config, **options)
    with pytest.raises(FileExistsError, match="resume=True"):
        train("afm_digits", tmp_path, config, **options)

    resumed = train("afm_digits", tmp_path, config, resume=True, **options)

    assert seen == [16, 32, 48, 48, 64]  # The checkpoint is that of 32 images.
    assert [entry["num_images"] for entry in resumed.log] == [16, 32, 48, 64]
    assert torch.equal(sample(resumed.model, [3]), sample(run.model, [3]))


def test_config_may_be_plain_data(run, tmp_path):
    config = load_config("afm_digits", TINY)

    again = train(config, tmp_path / "again", device="cpu", progress=False)

    assert torch.equal(sample(again.model, [3]), sample(run.model, [3]))


def test_overrides_may_be_texts():
    texts = [
        "objective.ot_scale=0.1",
        "evaluation.metrics=[Diversity, {type: FrechetDistance}]",
        'log.wandb="1e5"',
    ]
    values = {
        "objective.ot_scale": 0.1,
        "evaluation.metrics": ("Diversity", {"type": "FrechetDistance"}),
        "log.wandb": "1e5",
    }

    assert load_config("afm_digits", values) == load_config("afm_digits", texts)
    assert load_config("afm_digits", texts[0]) == load_config("afm_digits", texts[:1])
    changed = load_config(load_config("afm_digits"), values)
    assert changed == load_config("afm_digits", texts)


def test_default_folder_is_named_after_the_config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    run = train("afm_digits", overrides=TINY | {"num_images": 8}, device="cpu", progress=False)

    assert run.work_dir == "runs/afm_digits"


def test_classifier_run_has_no_model(tmp_path):
    tiny = {"objective.classifier.hidden_size": 16, "num_images": 32, "num_threads": None}
    run = train("classifier_digits", tmp_path, tiny, device="cpu", progress=False)

    assert run.model is None
    result = evaluate(run.work_dir, device="cpu", progress=False)
    assert result["values"] == run.evaluations[-1]["values"]


def test_wrong_arguments_of_train(tmp_path):
    with pytest.raises(ConfigError, match="Did you mean 'afm_digits'"):
        train("afm_digit", tmp_path)
    with pytest.raises(ConfigError, match="Did you mean 'ot_scale'"):
        train("afm_digits", tmp_path, {"objective.ot_scael": 0.1})
    with pytest.raises(ConfigError, match=r"objective\.ot_scale must be plain data, got a Tensor"):
        train("afm_digits", tmp_path, {"objective.ot_scale": torch.tensor(0.1)})
    with pytest.raises(TypeError, match=r"A callback is a function .* got 'print'"):
        train("afm_digits", tmp_path, callbacks=["print"])
    with pytest.raises(TypeError, match="A config is a name, a path or a mapping, got None"):
        train(None, tmp_path)
    with pytest.raises(ValueError, match="There is no device 'gpu'"):
        train("afm_digits", tmp_path, device="gpu")
    assert not list(tmp_path.iterdir())


# --- evaluate ---


def test_evaluation_of_a_run_is_that_of_its_training(run):
    last = run.evaluations[-1]
    expected = {"values": last["values"], "protocol": last["protocol"]}

    for path in (run.work_dir, run.checkpoint):
        assert evaluate(path, device="cpu", progress=False) == expected


def test_protocol_may_be_given_in_many_ways(run):
    section = {"metrics": ["Diversity"], "num_samples": 20}
    few = {"evaluation.num_samples": 20, "evaluation.metrics": ["Diversity"]}
    expected = run.evaluations[-1]["values"]
    for config, options in (
        (section, dict(data="Digits")),
        (check_protocol(section), dict(data="Digits")),
        ({"data": {"type": "Digits"}, "evaluation": section}, {}),
        ("digits", dict(overrides=few)),
        ("afm_digits", dict(overrides=few)),
    ):
        result = evaluate(run.model, config, progress=False, **options)
        assert result["values"] == expected, config


def test_changed_protocol_has_another_name(run):
    few = {"evaluation.num_samples": 20, "evaluation.metrics": ["Diversity"]}
    few |= {"evaluation.extractor": None, "evaluation.autoencoder": None}
    few["evaluation.reference"] = None

    result = evaluate(run.work_dir, "adm50k", overrides=few, device="cpu", progress=False)

    assert result["protocol"]["name"] == "adm50k, changed"


def test_wrong_arguments_of_evaluate(run):
    with pytest.raises(ConfigError, match="stores no protocol: give config="):
        evaluate(run.model)
    with pytest.raises(ConfigError, match="There is no config 'digitz'"):
        evaluate(run.model, "digitz")
    with pytest.raises(ConfigError, match=r"There is no reference: .* data="):
        evaluate(run.model, {"metrics": ["Diversity"]})
    with pytest.raises(ConfigError, match=r"no metrics: .* overrides="):
        evaluate(run.work_dir, overrides={"evaluation.metrics": []})
    with pytest.raises(ValueError, match="There is no device 'gpu'"):
        evaluate(run.work_dir, device="gpu")
    with pytest.raises(TypeError, match="got Linear"):
        evaluate(torch.nn.Linear(1, 1), "digits")


# --- sample and load_checkpoint ---


def test_sample_takes_paths_and_names(run):
    expected = sample(run.model, [3, 3, 7, 7])

    for model in (run.model, run.work_dir, Path(run.checkpoint)):
        assert torch.equal(sample(model, ["three", 7], num=2, device="cpu"), expected)
    assert run.model.class_names[3] == "three"
    pictures = sample(run.model, "three", num=4, output="pil")
    assert [(picture.mode, picture.size) for picture in pictures] == [("L", (8, 8))] * 4
    with pytest.raises(ValueError, match=r"no class 'tree'\. Did you mean 'three', class 3"):
        sample(run.model, "tree")
    with pytest.raises(CheckpointError, match="There is no checkpoint in nowhere"):
        sample("nowhere", [0])


def test_official_checkpoints_are_loaded(run, tmp_path):
    assert main(["export", "--checkpoint", run.work_dir, "--out", str(tmp_path / "m.pth")]) == 0
    options = dict(num_heads=4)

    model = load_checkpoint(tmp_path / "m.pth", **options)

    assert torch.equal(sample(model, [0, 1]), sample(run.model, [0, 1]))
    with pytest.raises(ValueError, match="ema=False is for a run"):
        load_checkpoint(tmp_path / "m.pth", ema=False)
    with pytest.raises(ValueError, match="num_heads is for official checkpoints"):
        load_checkpoint(run.work_dir, **options)
    with pytest.raises(CheckpointError, match=r"is a folder: .* with load_checkpoint"):
        load_official(run.work_dir)


def test_official_discriminator_is_not_sampled(tmp_path):
    network = build_discriminator("DiTDiscriminator", **NETWORK)
    torch.save(network.state_dict(), tmp_path / "d.pth")

    with pytest.raises(CheckpointError, match=r"DiTDiscriminator, not a .*load_official"):
        load_checkpoint(tmp_path / "d.pth", num_heads=4)


# --- The package ---


def test_import_does_not_import_torch():
    code = "import sys, afmlib; dir(afmlib); assert not {'torch', 'mmengine'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_train_refuses_a_folder_that_is_written(tmp_path):
    with only_writer(str(tmp_path)), pytest.raises(OSError, match="writ"):
        train("afm_digits", tmp_path, progress=False)
