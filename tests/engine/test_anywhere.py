"""A run leaves all it makes wherever fsspec reaches, and goes on from there."""

import uuid

import fsspec
import pytest
import torch
from mmengine.hooks import Hook

from afmlib import load_checkpoint, sample
from afmlib.cli import main
from afmlib.config import ConfigError
from afmlib.data.latent_folder import write_latents
from afmlib.io import storage

FILES = {"config.yaml", "log.jsonl", "evaluations.jsonl"}


class _StopAt(Hook):
    def __init__(self, num_images):
        self.num_images = num_images

    def after_train_iter(self, runner, **kwargs):
        if runner.train_loop.num_images == self.num_images:
            runner.stop()


@pytest.fixture(params=["memory", "s3", "file"])
def work_dir(request, tmp_path):
    """The folder of a run, as a URL."""
    if request.param == "s3":
        yield storage.join(request.getfixturevalue("s3_folder"), "run")
    elif request.param == "file":
        yield f"file://{tmp_path}/run"
    else:
        name = uuid.uuid4().hex
        yield f"memory://{name}/run"
        fsspec.filesystem("memory").rm(f"/{name}", recursive=True)


def test_run_equals_that_on_disk(run, work_dir, tmp_path):
    settings = ["evaluation.metrics=[Diversity]", "checkpoint_every=24", "log.every=8"]
    local = run(*settings, work_dir=tmp_path / "local")

    first = run(*settings, work_dir=work_dir, hooks=[_StopAt(40)])
    first.save()
    resumed = run(*settings, work_dir=work_dir, resume=True)

    assert first.objective.num_images == 40
    assert set(storage.list_files(work_dir)) == FILES
    for name, tensor in local.objective.state_dict().items():
        assert torch.equal(tensor, resumed.objective.state_dict()[name]), name
    picture = "samples/000000064.png"
    assert (tmp_path / "local" / picture).read_bytes() == storage.read_bytes(
        storage.join(work_dir, picture)
    )
    lines = storage.read_bytes(storage.join(work_dir, "log.jsonl")).splitlines()
    assert len(lines) == 8
    model = load_checkpoint(work_dir)
    assert torch.equal(sample(model, [1, 2]), sample(local.objective, [1, 2]))


def test_the_commands_take_urls(work_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tiny = ["objective.generator.hidden_size=16", "num_images=512", "evaluation.num_samples=20"]
    settings = [f"--set={key}" for key in tiny]
    train = ["train", "gan_digits", *settings, "--work-dir", work_dir]

    assert main(train) == 0
    assert main(train) == 2
    assert "already holds a run" in capsys.readouterr().err
    assert main([*train, "--resume"]) == 0
    assert "nothing to do" in capsys.readouterr().err
    assert main(["sample", "--checkpoint", work_dir, "--out", "grid.png"]) == 0
    assert main(["evaluate", "--checkpoint", work_dir]) == 0
    if not work_dir.startswith("file"):
        assert [path.name for path in tmp_path.iterdir()] == ["grid.png"]


def test_data_are_read_remotely(run, s3_folder, tmp_path):
    path = storage.join(s3_folder, "latents")
    means = torch.randn(40, 2, 4, 8, 8)
    write_latents(path, means, torch.ones_like(means), torch.arange(40) % 10, 0.5, 10)

    runner = run(f"data={{type: LatentFolder, path: '{path}'}}", work_dir=tmp_path / "run")

    assert runner.dataset.latent_shape == (4, 8, 8)


def test_tensorboard_needs_a_disk(run):
    with pytest.raises(ConfigError, match="needs a local --work-dir"):
        run("log.tensorboard=true", work_dir="memory://runs/tensorboard")
