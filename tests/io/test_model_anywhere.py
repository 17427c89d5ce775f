"""A model is loaded from wherever a checkpoint can lie."""

import pytest
import torch

from afmlib.io import storage
from afmlib.io.checkpoint import CheckpointError
from afmlib.sampling import load_checkpoint, sample


@pytest.fixture(params=["disk", "file", "memory", "s3", "web"])
def run(request, tmp_path, model_files):
    """The URL of a run with two checkpoints; the newer one is corrupt."""
    url = {
        "disk": lambda: str(tmp_path),
        "file": lambda: f"file://{tmp_path}",
        "memory": lambda: f"memory://checkpoint-tests/{tmp_path.name}",
        "s3": lambda: request.getfixturevalue("s3_folder"),
        "web": lambda: str(tmp_path),
    }[request.param]()
    for name, content in model_files.items():
        storage.write_atomically(f"{url}/checkpoints/000000064/{name}", content)
        storage.write_atomically(f"{url}/checkpoints/000000128/{name}", content[:-1])
    return request.getfixturevalue("web") if request.param == "web" else url


def test_load_model_from_checkpoint_or_run(run, model_files):
    models = [load_checkpoint(run), load_checkpoint(f"{run}/checkpoints/000000064")]

    made = [sample(model, [0, 1, 2], seed=3) for model in models]

    assert made[0].shape == (3, 2, 4, 4)
    assert torch.equal(*made)
    with pytest.raises(CheckpointError, match=r"manifest\.json is corrupt"):
        load_checkpoint(f"{run}/checkpoints/000000128")
    with pytest.raises(CheckpointError, match="There is no checkpoint in"):
        load_checkpoint(f"{run}/nowhere")
