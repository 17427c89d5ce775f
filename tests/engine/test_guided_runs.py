"""Tests of runs with guidance by a trained classifier and paired augmentation."""

import shutil

import pytest
import torch
from mmengine.hooks import Hook

from afmlib.config import ConfigError, load_config
from afmlib.engine import Runner
from afmlib.io.checkpoint import CheckpointError, load_training_state

TINY = [
    "objective.generator.hidden_size=16",
    "objective.discriminator.hidden_size=16",
    "global_batch=8",
    "num_images=48",
    "objective.gp_fraction=0.5",
    "evaluation.metrics=[]",
    "evaluation.extractor=null",
    "checkpoint_every=null",
    "sample_every=null",
    "precision=float64",
    "init_from=null",
    "objective.guidance.scale=0.3",
    "objective.augmentation={type: PairedAugmentation, probability: "
    "{type: LinearSchedule, start: 0.2, end: 0.9, length: 48}}",
]


class StopAt(Hook):
    def after_train_iter(self, runner, **kwargs):
        if runner.train_loop.num_images == 24:
            runner.stop()


def classifier(folder, seed=0):
    """Trains a classifier for a moment; its new blocks would let no gradient through."""
    options = [
        "objective.classifier.hidden_size=16",
        "num_images=64",
        "evaluation.metrics=[]",
        f"seed={seed}",
    ]
    runner = Runner(load_config("classifier_digits", options), folder, device="cpu")
    runner.train()
    return runner.last_checkpoint


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return classifier(tmp_path_factory.mktemp("classifier"))


def train(work_dir, checkpoint, *overrides, hooks=(), **options):
    path = f"objective.guidance.classifier.checkpoint={checkpoint}"
    config = load_config("afm_guided_digits", [*TINY, path, *overrides])
    runner = Runner(config, work_dir, device="cpu", hooks=hooks, **options)
    runner.train()
    return runner


@pytest.fixture(scope="module")
def whole(trained, tmp_path_factory):
    return train(tmp_path_factory.mktemp("whole"), trained)


def test_resume_is_exact(whole, trained, tmp_path):
    train(tmp_path, trained, hooks=[StopAt()]).save()
    resumed = train(tmp_path, trained, resume=True)

    for name, value in whole.objective.state_dict().items():
        assert torch.equal(value, resumed.objective.state_dict()[name]), name


def test_guidance_weights_are_not_saved(whole):
    state = load_training_state(whole.last_checkpoint)["objective"]

    guiding = [name for name in state if name.startswith("guidance.")]
    assert guiding == ["guidance.classifier.network._extra_state"]


def test_resume_with_other_guidance_weights_raises(trained, tmp_path):
    used = tmp_path / "classifier"
    shutil.copytree(trained, used)
    train(tmp_path / "run", used, hooks=[StopAt()]).save()
    shutil.rmtree(used)
    shutil.copytree(classifier(tmp_path / "other", seed=1), used)

    with pytest.raises(CheckpointError, match=r"the weights in .* differ from"):
        train(tmp_path / "run", used, resume=True)


@pytest.mark.parametrize("micro_batch", [4, 2])
def test_micro_batches_train_as_one_batch(whole, trained, micro_batch, tmp_path):
    parts = train(tmp_path, trained, f"micro_batch={micro_batch}")

    for name, value in parts.objective.discriminator.state_dict().items():
        torch.testing.assert_close(value, whole.objective.discriminator.state_dict()[name])


def test_guidance_and_augmentation_change_the_run(whole, trained, tmp_path):
    unguided = train(tmp_path / "a", trained, "objective.guidance.scale=0.0")
    plain = train(tmp_path / "b", trained, "objective.augmentation=null")

    weight = "final_layer.linear.weight"
    own = whole.objective.generator.state_dict()[weight]
    for other in (unguided, plain):
        assert not torch.allclose(own, other.objective.generator.state_dict()[weight])


def test_points_are_not_augmented(tmp_path):
    config = load_config("afm_gaussians2d", ["objective.augmentation=PairedAugmentation"])

    with pytest.raises(ConfigError, match=r"^The objective does not fit the data: .* needs images"):
        Runner(config, tmp_path / "run", device="cpu")
