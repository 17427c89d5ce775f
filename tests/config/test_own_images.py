"""Tests for afmlib.config.own_images, and the command that uses it."""

import json
import logging

import numpy as np
import pytest
import torch
from PIL import Image

from afmlib import train
from afmlib.cli import main
from afmlib.config import ConfigError, check_config, config_names, images_config, load_config
from afmlib.config import own_images as module
from afmlib.config.own_images import SCALES
from afmlib.engine import Runner

SMALL = {
    "num_images": 16,
    "sample_every": 8,
    "evaluate_every": None,
    "global_batch": 8,
    "log.grid_rows": 1,
    "evaluation.extractor": None,
    "evaluation.metrics": ["Diversity"],
    "objective.generator.hidden_size": 8,
    "objective.generator.depth": 1,
    "objective.generator.num_heads": 2,
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("AFMLIB_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def make(tmp_path):
    """Returns a function that writes random images: a folder -> the number in each sub-folder."""

    def write(name, counts, mode="RGB"):
        for label, count in counts.items():
            folder = tmp_path / name / label
            folder.mkdir(parents=True, exist_ok=True)
            for index in range(count):
                rng = np.random.default_rng(index)
                pixels = rng.integers(0, 255, (20, 24, 3), np.uint8)
                Image.fromarray(pixels).convert(mode).save(folder / f"{index}.png")
        return str(tmp_path / name)

    return write


@pytest.mark.parametrize("size", SCALES)
@pytest.mark.parametrize(("mode", "channels"), [("RGB", 3), ("L", 1), ("P", 3)])
def test_config_follows_size_and_colors(make, size, mode, channels):
    folder = make("photos", {"cats": 12, "dogs": 8}, mode)

    config = images_config("afm", folder, size)

    data = config["data"]
    images = data.get("images", data)
    assert images == {
        "type": "ImageFolder",
        "path": folder,
        "size": size,
        "channels": channels,
    }
    if size < 128:
        autoencoder = data["autoencoder"]
        assert (autoencoder["size"], autoencoder["in_channels"]) == (size, channels)
    assert config["global_batch"] == 16
    assert config["evaluation"]["num_samples"] == 20
    check_config(config)


def test_gray_pixels_in_color_files_are_gray(make):
    folder = make("photos", {"cats": 3}, "L")
    for path in (module.Path(folder) / "cats").iterdir():
        Image.open(path).convert("RGB").save(path)
    assert images_config("afm", folder)["data"]["images"]["channels"] == 1

    make("photos", {"dogs": 1})
    assert images_config("afm", folder)["data"]["images"]["channels"] == 3
    gray = images_config("afm", folder, overrides=["data.images.channels=1"])
    assert gray["data"]["autoencoder"]["in_channels"] == 1


@pytest.mark.parametrize("counts", [{"": 12}, {"cats": 12}])
@pytest.mark.parametrize("is_installed", [True, False])
def test_one_class(make, counts, is_installed, monkeypatch):
    if not is_installed:
        monkeypatch.setattr(module, "PACKAGE", "no_such_package")

    evaluation = images_config("afm", make("photos", counts))["evaluation"]

    assert "ClassAccuracy" not in evaluation["metrics"]
    assert (evaluation["extractor"] == "EfficientNetLiteExtractor") == is_installed


def test_classifier_replaces_missing_extractor(make, monkeypatch):
    monkeypatch.setattr(module, "PACKAGE", "no_such_package")
    folder = make("photos", {"cats": 6, "dogs": 6})

    config = images_config("afm", folder, 28, ["data.images.skip_unreadable=true"])

    extractor = config["evaluation"]["extractor"]
    assert extractor == {"type": "ClassifierExtractor", "images": config["data"]["images"]}
    assert extractor["images"]["skip_unreadable"]
    check_config(config)


def test_held_out_images_set_the_number_of_samples(make):
    make("photos/train", {"cats": 30, "dogs": 30})
    folder = make("photos/val", {"cats": 10, "dogs": 5}).removesuffix("/val")

    assert images_config("afm", folder)["evaluation"]["num_samples"] == 15


@pytest.mark.parametrize("scale", sorted(set(SCALES.values())))
def test_every_method_has_the_scale(scale):
    methods = {name.removesuffix("_emoji") for name in config_names() if name.endswith("_emoji")}

    assert {f"{method}_{scale}" for method in methods} <= set(config_names())


def test_summary(make, caplog):
    caplog.set_level(logging.INFO, logger="afmlib")
    folder = make("photos", {"cats": 12, "dogs": 8})

    images_config("afm", folder, 64)
    assert "20 color images, 2 classes: cats 12, dogs 8." in caplog.text
    assert "images64: 64x64 pixels, through a small autoencoder, 16 tokens" in caplog.text
    assert "add --set data.mirror=true" in caplog.text

    caplog.clear()
    images_config("afm", folder, 128, {"objective.generator.patch_size": 2})
    assert "4096 tokens per image take a CPU days" in caplog.text
    assert "objective.generator.patch_size, to 8 for 256 tokens" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("afm", 30), "must be one of 28, 32, 64, 128, got 30.*so 28 works"),
        (("afm", 256), "got 256.*so 128 works"),
        (("meanflw", 32), "There is no method 'meanflw'. Did you mean 'meanflow'"),
        (("afm_digits", 32), "There is no method 'afm_digits'"),
        (("afm", 32, ["num_image=3"]), "no key 'num_image'.*'num_images'"),
        (("afm", 32, ["data={type: Digits}"]), "is an ImageFolder, got Digits"),
    ],
)
def test_mistakes(make, arguments, message):
    method, *others = arguments
    folder = make("photos", {"cats": 3})

    with pytest.raises(ConfigError, match=message):
        check_config(images_config(method, folder, *others))


def test_unreadable_files_are_named(make):
    folder = make("photos", {"cats": 3})
    (module.Path(folder) / "cats/bad.png").write_bytes(b"no image")

    with pytest.raises(ValueError, match=r"1 of 4 files .*cats/bad.png.*skip_unreadable"):
        images_config("afm", folder)
    images_config("afm", folder, overrides=["data.images.skip_unreadable=true"])


def test_command_trains_and_prints_the_same_config(make, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make("photos", {"cats": 6, "dogs": 6})
    settings = {**SMALL, "data.autoencoder.num_steps": 2, "data.autoencoder.width": 16}
    options = [w for k, v in settings.items() for w in ("--set", f"{k}={json.dumps(v)}")]
    command = ["train", "meanflow", "--data", "photos", "--size", "32", *options]

    assert main([*command, "--print-config"]) == 0
    (tmp_path / "photos.yaml").write_text(capsys.readouterr().out)
    assert main(command) == 0
    told = capsys.readouterr().err
    assert main(["train", "photos.yaml", "--work-dir", "runs/file"]) == 0

    assert "12 color images, 2 classes: cats 6, dogs 6" in told
    assert "next: afmlib sample --checkpoint runs/meanflow_photos" in told
    assert (tmp_path / "runs/meanflow_photos/samples/000000008.png").exists()
    logs = [
        (tmp_path / f"runs/{name}/log.jsonl").read_text() for name in ("meanflow_photos", "file")
    ]
    assert len({json.loads(log.splitlines()[-1])["generator/squared_error"] for log in logs}) == 1


def test_size_without_data(capsys):
    assert main(["train", "afm_digits", "--size", "32"]) == 2
    assert "add --data FOLDER" in capsys.readouterr().err
    assert main(["train", "afm"]) == 2
    assert "add --data FOLDER" in capsys.readouterr().err


def test_python_trains_in_pixels(make, tmp_path):
    folder = make("photos", {"": 8}, "L")

    run = train("flow_matching", tmp_path / "run", SMALL, progress=False, data=folder, size=128)

    assert run.model.generator.latent_shape == (1, 128, 128)


def test_scales_name_their_folder(make, tmp_path):
    folder = make("photos", {"cats": 8})
    overrides = {**SMALL, "data.path": folder}

    runner = Runner(load_config("flow_matching_images128", overrides), tmp_path / "run")

    assert torch.equal(runner.dataset.labels, torch.zeros(8, dtype=torch.long))
