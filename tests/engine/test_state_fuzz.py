"""Whatever a checkpoint holds beside weights: a run goes on with it, or it is refused."""

import collections
import copy
import hashlib
import json
import shutil

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from afmlib.engine import TrainingError
from afmlib.engine.state import load_run
from afmlib.io.checkpoint import CheckpointError, checkpoint_folders, load_training_state

JUNK = [
    *(
        None,
        True,
        -1,
        0,
        7,
        10**9,
        0.5,
        float("nan"),
        float("inf"),
        "",
        "x",
        [],
        {},
        [[]],
        {"a": 5},
    ),
    *(torch.zeros(()), torch.zeros(3), torch.full((2, 2), float("nan")), torch.zeros(0)),
    *(torch.tensor(1), torch.tensor(1j), torch.tensor(True)),
]


@pytest.fixture
def stopped(run, tmp_path):
    """A run after its last checkpoint, that checkpoint, and what is in it."""
    runner = run("num_images=16", "optimizers.generator.clip_grad_norm=1")
    (folder,) = checkpoint_folders(str(tmp_path / "run"))
    return runner, folder, load_training_state(folder)


def places(value, path=()):
    """Yields where all values in nested dicts stand."""
    for key, part in value.items():
        yield (*path, key)
        if isinstance(part, dict):
            yield from places(part, (*path, key))


def spoil(draw, state):
    for _ in range(draw(st.integers(1, 2))):
        *path, key = draw(st.sampled_from(list(places(state))))
        part = state
        for name in path:
            part = part[name]
        if draw(st.integers(0, 3)):
            part[key] = copy.deepcopy(draw(st.sampled_from(JUNK)))
        else:
            del part[key]


def write(folder, state, **said):
    """Writes a state into a checkpoint, and changes its manifest, with checksums that are right."""
    torch.save(state, f"{folder}/training.pt")
    with open(f"{folder}/manifest.json") as file:
        manifest = json.load(file)
    manifest.pop("checksum")
    with open(f"{folder}/training.pt", "rb") as file:
        manifest["files"]["training.pt"] = hashlib.sha256(file.read()).hexdigest()
    manifest |= said
    text = json.dumps(manifest, sort_keys=True)
    manifest["checksum"] = hashlib.sha256(text.encode()).hexdigest()
    with open(f"{folder}/manifest.json", "w") as file:
        json.dump(manifest, file)


@pytest.mark.parametrize("examples", [200, pytest.param(2000, marks=pytest.mark.slow)])
def test_any_state_resumes_or_raises(stopped, examples, tmp_path):
    runner, folder, whole = stopped
    loop, outcomes = runner.train_loop, collections.Counter()
    spoiled = str(tmp_path / "spoiled")
    shutil.copytree(folder, spoiled)

    def test(data):
        state = copy.deepcopy(whole)
        spoil(data.draw, state)
        write(spoiled, state)
        try:
            load_run(spoiled, runner.step, runner.stateful)
        except CheckpointError as error:
            outcomes["refused"] += len(str(error)) > 0
            return
        outcomes["read"] += 1
        try:
            loop.run_iter()
            runner.log.write(runner)
        except TrainingError:
            outcomes["not finite"] += 1

    options = dict(suppress_health_check=list(HealthCheck), phases=[Phase.generate])
    settings(max_examples=examples, **options)(given(st.data())(test))()

    assert min(outcomes["refused"], outcomes["read"]) >= examples / 50, outcomes


@pytest.mark.parametrize(
    ("spoiled", "message"),
    [
        (
            lambda state: state["optimizers"]["generator"]["state"][0].update(
                exp_avg=torch.zeros(3)
            ),
            "exp_avg does not have shape",
        ),
        (
            lambda state: state["optimizers"]["generator"]["state"].update({10**6: {}}),
            "optimizer state for unknown parameters",
        ),
        (lambda state: state["hooks"]["log"].update(count="x"), "cannot be interpreted"),
        (lambda state: state["hooks"]["log"].update(sums={"a": 5}), "a sum of the log is 5"),
    ],
)
def test_incompatible_state_is_explained(stopped, spoiled, message):
    runner, folder, state = stopped
    spoiled(state)
    write(folder, state)

    with pytest.raises(CheckpointError, match=f"does not fit this run: .*{message}"):
        load_run(folder, runner.step, runner.stateful)


@pytest.mark.parametrize("num_images", [-8, "x", None, 0.5])
def test_invalid_count_raises(stopped, num_images):
    runner, folder, state = stopped
    write(folder, state, num_images=num_images)

    with pytest.raises(CheckpointError, match=r"num_images is|manifest is of -8"):
        load_run(folder, runner.step, runner.stateful)
