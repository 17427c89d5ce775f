"""Tests for afmlib.cli."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from afmlib.cli import main
from afmlib.cli.doctor import EXTRAS
from afmlib.cli.main import COMMANDS
from afmlib.registry import DISCRIMINATORS

TINY = [
    *("--set", "objective.generator.hidden_size=16"),
    *("--set", "objective.discriminator.hidden_size=16"),
    *("--set", "global_batch=8"),
    *("--set", "num_images=32"),
    *("--set", "evaluation.metrics=[Diversity, ClassAccuracy]"),
    *("--set", "evaluation.extractor=null"),
    *("--set", "evaluation.num_samples=20"),
]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A tiny finished run, which tests copy."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    assert main(["train", "afm_digits", "--work-dir", str(folder), *TINY]) == 0
    return folder


@pytest.fixture
def trained(here, finished):
    return Path(shutil.copytree(finished, here / "run"))


def test_help_does_not_import_torch(here):
    code = """
import sys, afmlib
from afmlib.cli.main import build_parser
build_parser().format_help()
assert not {"torch", "mmengine", "numpy"} & set(sys.modules), "heavy"
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])

    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert "--plugin" in text or "interpolation" in text  # Its pictures have it.


def test_train_then_sample_then_evaluate(trained, capsys):
    sampling = ["sample", "--checkpoint", "run", "--num", "6", "--labels", "3", "7"]
    assert main([*sampling, "--out", "grid.png"]) == 0
    assert main([*sampling, "--out", "all.npz"]) == 0
    assert main([*sampling, "--out", "singles/"]) == 0
    assert main(["evaluate", "--checkpoint", "run", "--out", "numbers.json"]) == 0

    here = trained.parent
    assert np.asarray(Image.open(here / "grid.png")).ndim == 3
    array = np.load(here / "all.npz")["arr_0"]
    assert (array.shape, array.dtype) == ((6, 8, 8, 1), np.uint8)
    singles = [np.asarray(Image.open(path)) for path in sorted((here / "singles").iterdir())]
    np.testing.assert_array_equal(np.stack(singles), array[..., 0])
    numbers = json.loads((here / "numbers.json").read_text())
    assert set(numbers["values"]) == {"diversity", "class_accuracy"}
    assert numbers["protocol"]["num_samples"] == 20
    assert "class_accuracy" in capsys.readouterr().out


def test_batch_size_keeps_samples(trained):
    for batch, name in (("1", "one.npz"), ("5", "five.npz")):
        main(["sample", "--checkpoint", "run", "--num", "5", "--batch-size", batch, "--out", name])

    one, five = (np.load(trained.parent / n)["arr_0"].astype(int) for n in ("one.npz", "five.npz"))
    assert np.abs(one - five).max() <= 1


def test_print_config(here, capsys):
    assert main(["train", "gan_digits", "--print-config", "--set", "seed=7"]) == 0

    text = capsys.readouterr().out
    assert "seed: 7" in text
    assert "ot_scale: 0.0" in text
    assert not list(here.iterdir())


def test_printed_config_can_be_trained(here, capsys):
    main(["train", "afm_digits", "--print-config", *TINY])
    (here / "mine.yaml").write_text(capsys.readouterr().out)

    assert main(["train", "mine.yaml", "--work-dir", "run"]) == 0


MISTAKES = [
    (["train", "afm_digits", "--set", "num_images=1000.5"], "num_images must be a whole number"),
    (["train", "afm_digits", "--set", "updates.generater=5"], "Did you mean 'generator'"),
    (["train", "afm_digits", "--set", "evaluation.metrics=[FID]"], "[FrechetDistance]"),
    (["train", "afm_digit"], "Did you mean 'afm_digits'"),
    (["train", "afm_digits", "--set", "objective.nfe=0"], "nfe must be a positive integer"),
    (["train", "afm_digits", "--set", "objective.ot_scale=-1"], "ot_scale must not be negative"),
    (["train", "afm_digits", "--set", "objective.generator.patch_size=3"], "does not divide"),
    (["train", "afm_digits", "--set", "objective.generator.num_heads=5"], "does not divide"),
    (["train", "afm_digits", "--set", "objective.generator.hiden_size=5"], "'hidden_size'"),
    (["train", "afm_digits", "--plugin", "nowhere.py"], "There is no plugin file"),
    (["train", "afm_digits", "--set", "seed"], "key=value"),
    (["train", "nowhere.yaml"], "There is no config file"),
    (["list", "generator"], "Did you mean 'generators'"),
    (["train", "afm_digits", "--device", "nonsense"], "There is no device 'nonsense'"),
    (["train", "afm_digits", "--set", "objective.ot_scale.start=-1"], "must not be negative"),
    (["train", "afm_digits", "--set", "objective.generator.attention=xformers"], "'auto'"),
]


@pytest.mark.parametrize(("argv", "message"), MISTAKES)
def test_mistakes_have_status_2(argv, message, here, capsys):
    assert main(argv) == 2

    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert error.count("\n") == 1
    assert not list(here.glob("runs/*/checkpoints"))


def test_debug_shows_the_traceback(here, capsys):
    assert main(["train", "afm_digits", "--debug", "--set", "objective.nfe=0"]) == 2

    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--labels", "3", "10"], "labels must be from 0 to 9, got 10"),
        (["--labels", "-1"], "labels must be from 0 to 9, got -1"),
        (["--nfe", "2"], "trained for nfe 1 only"),
        (["--num", "0"], "--num must be at least 1"),
        (["--batch-size", "0"], "--batch-size must be at least 1"),
        (["--device", "nonsense"], "There is no device"),
        (["--out", "x.jpg"], "--out must end in .png, .npz or .safetensors, or be a folder/"),
    ],
)
def test_mistakes_of_sample(options, message, trained, capsys):
    assert main(["sample", "--checkpoint", "run", "--out", "x.png", *options]) == 2

    assert message in capsys.readouterr().err
    assert not (trained.parent / "x.png").exists()


def test_runtime_errors_have_status_1(here, capsys):
    assert main(["sample", "--checkpoint", "nowhere"]) == 1
    assert main(["sample", "--checkpoint", ".", "--out", "no/such/folder/x.png"]) == 1
    assert main(["train", "afm_b2", "--work-dir", "run"]) == 1

    lines = capsys.readouterr().err.splitlines()
    assert "There is no checkpoint in nowhere" in lines[0]
    assert "No such folder" in lines[1]
    assert "latents/imagenet256" in lines[2]
    assert len(lines) == 3


def test_folder_without_permission(trained, capsys, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *args: False)  # Root may write anywhere.

    assert main(["sample", "--checkpoint", "run", "--out", "x.png"]) == 1

    assert "No permission" in capsys.readouterr().err


def test_full_disk_keeps_the_last_checkpoint(trained, capsys, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    before = sorted(path.name for path in (trained / "checkpoints").iterdir())
    monkeypatch.setattr(os, "fsync", full)
    status = main(
        ["train", "afm_digits", "--work-dir", "run", *TINY, "--resume", "--set", "num_images=64"]
    )

    assert status == 1
    assert "No space left on device" in capsys.readouterr().err
    assert before[0] in {path.name for path in (trained / "checkpoints").iterdir()}
    monkeypatch.undo()
    assert main(["sample", "--checkpoint", str(trained), "--out", str(trained / "x.png")]) == 0


def test_existing_run_needs_resume(trained, capsys):
    again = ["train", "afm_digits", "--work-dir", "run", *TINY]

    assert main(again) == 2
    assert "--resume" in capsys.readouterr().err
    assert main([*again, "--resume"]) == 0


def test_list_one_group(capsys):
    assert main(["list", "discriminators"]) == 0

    text = capsys.readouterr().out
    assert "DiTDiscriminator" in text
    assert "dit_xl_2" in text
    assert "afmlib" in text


def test_list_all(capsys):
    assert main(["list"]) == 0

    text = capsys.readouterr().out
    for name in ("RelativisticLoss", "FlowMatching", "xformers", "afm_xl2_deep112", "Digits"):
        assert name in text


def test_doctor(capsys):
    assert main(["doctor"]) == 0

    text = capsys.readouterr().out
    words = ("versions", "torch", "devices", "kernels", "bfloat16", "fused AdamW", "attention")
    for word in (*words, "double_backward", "plugins"):
        assert word in text
    assert "pip install 'afmlib[xformers]'" in text or "xformers 0" in text


def test_doctor_names_every_extra():
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    table = text.partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    extras = set(re.findall(r"^(\w+) = ", table, re.MULTILINE))

    assert "mnist" in extras
    # unet and vae are one package.
    assert set(EXTRAS.values()) == extras - {"dev", "docs", "test", "unet"}


def test_evaluate_without_the_plugin(here, monkeypatch):
    (here / "disc.py").write_text(
        "from torch import nn\n"
        "from afmlib.interfaces import Discriminator\n"
        "from afmlib.registry import DISCRIMINATORS\n"
        "@DISCRIMINATORS.register_module()\n"
        "class EvaluatedWithout(Discriminator):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.layer = nn.Linear(64, 1)\n"
        "    def forward(self, latents, labels, timesteps=None):\n"
        "        return self.layer(latents.flatten(1)).squeeze(1)\n"
    )
    train = [*("--set", "objective.discriminator={type: EvaluatedWithout}"), "--plugin", "disc.py"]
    assert TINY[2:4] == ["--set", "objective.discriminator.hidden_size=16"]
    tiny = TINY[:2] + TINY[4:]
    assert main(["train", "afm_digits", "--work-dir", "run", *tiny, *train]) == 0
    monkeypatch.delitem(DISCRIMINATORS._module_dict, "EvaluatedWithout")

    assert main(["evaluate", "--checkpoint", "run"]) == 0
    assert main(["sample", "--checkpoint", "run", "--out", "x.png"]) == 0


def test_broken_plugin_file_is_named(here, capsys):
    (here / "broken.py").write_text("raise RuntimeError('half written')")

    for command in ("doctor", "list"):
        assert main([command, "--plugin", "broken.py"]) == 0
        output = capsys.readouterr()
        assert "half written" in output.err
        assert "afmlib" in output.out


def test_plugin_file(here, capsys):
    (here / "mine.py").write_text(
        "from afmlib.interfaces import AdversarialLoss\n"
        "from afmlib.registry import LOSSES\n"
        "@LOSSES.register_module()\n"
        "class MyCliLoss(AdversarialLoss):\n"
        "    def discriminator_loss(self, real, fake): return fake - real\n"
        "    def generator_loss(self, real, fake): return real - fake\n"
    )
    train = ["train", "afm_digits", "--work-dir", "run", *TINY, "--plugin", "mine.py"]

    assert main([*train, "--set", "objective.loss=MyCliLoss"]) == 0
    assert main(["list", "losses", "--plugin", "mine.py"]) == 0
    assert "MyCliLoss" in capsys.readouterr().out
    assert main(["evaluate", "--checkpoint", "run", "--plugin", "mine.py"]) == 0


def test_no_command_prints_the_help(capsys):
    assert main([]) == 2

    text = capsys.readouterr().out
    for command in COMMANDS:
        lines = re.findall(rf"^ +{command} +(.+)$", text, re.MULTILINE)
        assert len(lines) == 1
        assert lines[0].endswith("."), "The help of a command is one line."


@pytest.mark.parametrize(("word", "near"), [("trian", "train"), ("Sampel", "sample")])
def test_unknown_command_suggests_the_nearest(word, near, capsys):
    assert main([word, "afm_digits"]) == 2

    assert f"There is no command {word!r}. Did you mean {near!r}?" in capsys.readouterr().err


def test_unknown_command_lists_all(capsys):
    assert main(["zzz"]) == 2

    error = capsys.readouterr().err
    assert "Did you mean" not in error
    assert ", ".join(COMMANDS) in error


OBJECTIVE = """
from afmlib.objectives.flow_matching import FlowMatching
from afmlib.registry import OBJECTIVES

@OBJECTIVES.register_module()
class MyCliFlow(FlowMatching):
    pass
"""


def test_plugin_objective_trains_its_networks(here, capsys):
    (here / "mine.py").write_text(OBJECTIVE)
    tiny = [word for word in TINY if "discriminator" not in word]
    tiny = tiny[:2] + tiny[3:]  # Without the --set of the discriminator.
    train = ["train", "flow_matching_digits", "--work-dir", "run", *tiny, "--plugin", "mine.py"]

    assert main([*train, "--set", "objective.type=MyCliFlow"]) == 0
    assert main(["sample", "--checkpoint", "run", "--num", "2", "--out", "x.npz"]) == 0

    assert np.load(here / "x.npz")["arr_0"].shape == (2, 8, 8, 1)


@pytest.mark.parametrize("workers", ["0", "100000"])
def test_number_of_workers_is_checked_first(workers, here, capsys):
    options = ["--images", "none", "--vae", "none", "--out", "latents"]

    assert main(["encode", *options, "--workers", workers]) == 2

    assert f"--workers must be 1 to 256, got {workers}." in capsys.readouterr().err
