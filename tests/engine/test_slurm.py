"""Runs under srun: the variables of SLURM, and a real SLURM of one node."""

import os
import re
import time
from pathlib import Path

import pytest
from slurm_cluster import SlurmCluster

from afmlib import slurm
from afmlib.io.checkpoint import find_checkpoint

SCRIPT = re.search(
    r"^```bash\n(#!/bin/bash\n.*?)^```$",
    (Path(__file__).parents[2] / "docs/cluster.md").read_text(),
    re.MULTILINE | re.DOTALL,
)[1]

TASK = {
    "SLURM_JOB_ID": "1234",
    "SLURM_STEP_ID": "2",
    "SLURM_NTASKS": "16",
    "SLURM_PROCID": "11",
    "SLURM_LOCALID": "3",
    "SLURM_STEP_NODELIST": "gpu[07-08]",
    "SLURM_JOB_NODELIST": "cpu1,gpu[07-08]",
}
OURS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def joined(monkeypatch, **changes):
    """Returns the variables that a task has after joining its step."""
    for name in {*OURS, *TASK}:
        monkeypatch.delenv(name, raising=False)
    for name, value in {**TASK, **changes}.items():
        if value is not None:
            monkeypatch.setenv(name, value)
    slurm.join_slurm_step()
    found = {name: os.environ.pop(name, None) for name in OURS}
    return {name: value for name, value in found.items() if value is not None}


def test_task_gets_the_variables_of_torchrun(monkeypatch):
    assert joined(monkeypatch) == {
        "RANK": "11",
        "WORLD_SIZE": "16",
        "LOCAL_RANK": "3",
        "MASTER_ADDR": "gpu07",
        "MASTER_PORT": str(10_000 + 12_342),
    }


def test_chosen_port_stays(monkeypatch):
    assert joined(monkeypatch, MASTER_PORT="4321")["MASTER_PORT"] == "4321"


def test_torchrun_goes_first(monkeypatch):
    assert joined(monkeypatch, WORLD_SIZE="8") == {"WORLD_SIZE": "8"}


@pytest.mark.parametrize("changes", [{"SLURM_STEP_ID": None}, {"SLURM_NTASKS": "1"}])
def test_batch_script_and_single_task_are_one_process(monkeypatch, changes):
    assert joined(monkeypatch, **changes) == {}


def test_incomplete_variables_are_an_error(monkeypatch):
    with pytest.raises(ValueError, match=r"16 tasks without SLURM_PROCID.*start them with srun"):
        joined(monkeypatch, SLURM_PROCID=None)


@pytest.mark.parametrize(
    ("nodes", "host"),
    [
        ("a", "a"),
        ("b,a", "b"),
        ("n[3-5,9],m1", "n3"),
        ("rack[02-03]n[10,12]-ib,x", "rack02n10-ib"),
        ("n[0012]", "n0012"),
    ],
)
def test_first_host(nodes, host):
    assert slurm.first_host(nodes) == host


# --- On a real SLURM ---


@pytest.fixture(scope="module")
def cluster():
    """A SLURM of one node."""
    found = SlurmCluster()
    yield found
    found.close()


SETTINGS = {
    "objective.generator.hidden_size": 16,
    "objective.discriminator.hidden_size": 16,
    "global_batch": 8,
    "num_images": 1200,
    "checkpoint_every": "null",
    "sample_every": "null",
    "log.every": 8,
    "evaluation.metrics": "[]",
    "evaluation.extractor": "null",
}


def arguments(work_dir, **settings):
    overrides = [f"--set={key}={value}" for key, value in {**SETTINGS, **settings}.items()]
    return ["afm_digits", "--work-dir", str(work_dir), "--device", "cpu", *overrides]


@pytest.mark.slurm
def test_srun_trains_one_run(cluster, tmp_path):
    folder = tmp_path / "run"

    done = cluster.run("srun", "-n2", "afmlib", "train", *arguments(folder, num_images=48))

    assert done.returncode == 0, done.stderr
    assert "2 processes" in done.stderr
    assert done.stderr.count("done: the model is") == 1
    assert len(list((folder / "checkpoints").iterdir())) == 1


@pytest.mark.slurm
def test_different_commands_are_an_error(cluster, tmp_path):
    command = ["afmlib", "train", *arguments(f"{tmp_path}/$SLURM_PROCID", num_images=48)]
    line = " ".join(f'"{word}"' for word in command)

    done = cluster.run("srun", "-n2", "bash", "-c", line)

    assert done.returncode == 2
    assert f"its folder is '{tmp_path}/1', not '{tmp_path}/0'" in done.stderr
    apart = cluster.run("srun", "-n2", "bash", "-c", line, env={"WORLD_SIZE": "1"})
    assert apart.returncode == 0, apart.stderr
    assert all(find_checkpoint(f"{tmp_path}/{task}") for task in (0, 1))


@pytest.mark.slurm
def test_separate_runs_in_one_folder_are_an_error(cluster, tmp_path):
    command = ["afmlib", "train", *arguments(tmp_path / "run")]

    done = cluster.run("srun", "-n2", *command, "--resume", env={"WORLD_SIZE": "1"})

    assert done.returncode == 2
    assert done.stderr.count("is in use by process") == 1
    assert done.stderr.count("done: the model is") == 1


@pytest.mark.slurm
def test_script_of_the_page_requeues_and_resumes_bit_for_bit(cluster, tmp_path):
    whole = cluster.run("srun", "-n2", "afmlib", "train", *arguments(tmp_path / "whole"))
    assert whole.returncode == 0, whole.stderr
    line = f"afmlib train {' '.join(arguments(tmp_path / 'run'))} --resume"
    text = SCRIPT.replace("afmlib train afm_xl2 --work-dir runs/xl2 --resume", line)
    assert line in text
    text = re.sub(r"#SBATCH --(gpus|cpus|nodes|ntasks).*\n", "", text)
    (tmp_path / "train.sbatch").write_text(text)
    sbatch = ["sbatch", "--parsable", "--ntasks=2", "--chdir", str(tmp_path), "train.sbatch"]
    job = cluster.run(*sbatch, cwd=tmp_path).stdout.strip()
    log, output = tmp_path / "run/log.jsonl", tmp_path / f"afm-xl2-{job}.txt"

    def wait(condition, seconds=900):
        deadline = time.monotonic() + seconds
        while not condition():
            shown = output.read_text() if output.exists() else ""
            assert time.monotonic() < deadline, (cluster.state(job), shown)
            time.sleep(0.2)

    def entries():
        return len(log.read_text().splitlines()) if log.exists() else 0

    for restarts, number in ((1, "TERM"), (2, "USR1")):
        before = entries()
        wait(lambda start=before: entries() >= start + 5)
        cluster.run("scancel", f"--signal={number}", job)
        wait(lambda count=restarts: cluster.state(job)[1] == count)
        cluster.run("scontrol", "update", f"jobid={job}", "starttime=now")  # Not in two minutes.
    wait(lambda: cluster.state(job)[0] == "COMPLETED")

    shown = output.read_text()
    assert shown.count("stopped and saved") == shown.count("resuming from") == 2
    last, same = (find_checkpoint(str(tmp_path / name)) for name in ("whole", "run"))
    for path in Path(last).glob("*.safetensors"):
        assert path.read_bytes() == Path(same, path.name).read_bytes(), path.name
