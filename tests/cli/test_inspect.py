"""Tests for afmlib.cli.inspect: its pictures equal those of afmlib.inspection."""

import official_layout as layout
import pytest
import torch
from tiny_autoencoder import save_autoencoder

from afmlib import load_checkpoint, load_official
from afmlib.cli import main
from afmlib.cli.inspect import name_of
from afmlib.data.diffusers_autoencoder import DiffusersAutoencoder
from afmlib.data.points import FourGaussians
from afmlib.inspection import (
    compare,
    comparison_picture,
    interpolate_noises,
    interpolation_picture,
    measure_transport,
    read_training,
    training_figure,
    transport_figure,
)
from afmlib.inspection.images import png_of_figure
from afmlib.io import storage

SMALL = [
    *("--set", "objective.generator.hidden_size=16"),
    *("--set", "objective.discriminator.hidden_size=16"),
    *("--set", "evaluation.metrics=[]"),
    *("--set", "evaluation.extractor=null"),
    *("--set", "sample_every=null"),
]
RUNS = {
    "digits": ["afm_digits", "--set", "global_batch=8", "--set", "num_images=16"],
    "seven": ["afm_digits", "--set", "global_batch=8", "--set", "num_images=16", "--set", "seed=7"],
    "line": ["afm_gaussians1d", "--set", "num_images=256", "--set", "data.num_samples=500"],
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with a tiny run of each kind."""
    folder = tmp_path_factory.mktemp("runs")
    for name, arguments in RUNS.items():
        assert main(["train", *arguments, *SMALL, "--work-dir", str(folder / name)]) == 0
    return folder


@pytest.fixture
def here(runs, monkeypatch):
    monkeypatch.chdir(runs)
    return runs


def test_interpolation(here):
    argv = ["inspect", "interpolation", "--checkpoint", "digits", "--labels", "3", "7"]
    assert main([*argv, "--rows", "2", "--steps", "3", "--seed", "5", "--out", "a.png"]) == 0
    assert main([*argv, "--rows", "2", "--steps", "3", "--online", "--out", "b.png"]) == 0

    model, online = (load_checkpoint("digits", ema=ema) for ema in (True, False))
    assert (here / "a.png").read_bytes() == interpolation_picture(
        interpolate_noises(model, [3, 7], 2, 3, seed=5)
    )
    assert (here / "b.png").read_bytes() == interpolation_picture(
        interpolate_noises(online, [3, 7], 2, 3)
    )


def test_interpolation_of_latents(here, capsys):
    state = layout.random_state(layout.generator(**layout.TINY | dict(classes=1000)))
    torch.save(state, "xl2_1nfe_guided_FID2.38.pth")
    save_autoencoder(here / "vae")
    argv = ["inspect", "interpolation", "--checkpoint", "xl2_1nfe_guided_FID2.38.pth"]
    argv += ["--num-heads", "2", "--rows", "1", "--steps", "2", "--labels", "golden retriever"]

    assert main([*argv, "--out", "latents.png"]) == 0
    assert "for images, add --vae" in capsys.readouterr().err
    assert main([*argv, "--vae", "vae", "--out", "images.png"]) == 0
    assert "--vae" not in capsys.readouterr().err

    model = load_official("xl2_1nfe_guided_FID2.38.pth", num_heads=2)
    strip = interpolate_noises(model, [207], rows=1, steps=2)
    decode = torch.inference_mode()(DiffusersAutoencoder("vae").decode)
    assert (here / "latents.png").read_bytes() == interpolation_picture(strip)
    assert (here / "images.png").read_bytes() == interpolation_picture(strip, decode)


def test_comparison(here):
    argv = ["inspect", "compare", "--checkpoints", "digits", "seven", "--labels", "3", "7"]
    assert main([*argv, "--rows", "2", "--seed", "5", "--nfe", "1", "--out", "c.png"]) == 0

    models = [(name, load_checkpoint(name)) for name in ("digits", "seven")]
    assert (here / "c.png").read_bytes() == comparison_picture(compare(models, [3, 7], 2, 5))


def test_comparison_with_official_files(here):
    times = ("t_embedder",)
    shape = layout.TINY | dict(classes=10, channels=1, tokens=16)
    torch.save(layout.random_state(layout.generator(**shape, times=times)), "a.pth")
    torch.save(layout.random_state(layout.generator(**shape)), "b.pth")
    argv = ["inspect", "compare", "--checkpoints", "a.pth", "digits", "b.pth", "a.pth"]
    argv += ["--labels", "3", "--rows", "1", "--out", "p.png", "--nfe", "1", "1", "1", "2"]
    told = ["--num-heads", "2", "--repeats", "2", "1", "1", "--prediction"]

    assert main([*argv, *told, "sample", "sample", "velocity"]) == 0

    models = [
        ("a.pth", load_official("a.pth", repeats=2, num_heads=2)),
        ("digits", load_checkpoint("digits")),
        ("b.pth", load_official("b.pth", num_heads=2)),
        ("a.pth", load_official("a.pth", nfe=2, num_heads=2)),
    ]
    expected = comparison_picture(compare(models, [3], 1))
    assert (here / "p.png").read_bytes() == expected


def test_transport(here):
    argv = ["inspect", "transport", "--checkpoint", "line", "line", "--num", "60"]
    assert main([*argv, "--lines", "9", "--out", "t.png"]) == 0

    data = FourGaussians(500)
    one = measure_transport("line", load_checkpoint("line"), data, num=60)
    expected = png_of_figure(transport_figure([one, one], 9))
    assert (here / "t.png").read_bytes() == expected


def test_training_to_a_url(here, s3_folder):
    url = f"{s3_folder}/curves.png"

    assert main(["inspect", "training", "--work-dir", "digits", "--out", url]) == 0

    assert storage.read_bytes(url) == png_of_figure(training_figure(read_training("digits")))


@pytest.mark.parametrize(
    ("argv", "status", "message"),
    [
        ("interpolation --checkpoint digits --labels 10", 2, "labels must be from 0 to 9, got 10"),
        ("interpolation --checkpoint digits --steps 1", 2, "steps at least 2"),
        ("interpolation --checkpoint line", 2, "inspect transport"),
        ("interpolation --checkpoint digits --nfe 2", 2, "trained for nfe 1 only"),
        ("interpolation --checkpoint digits --device no", 2, "There is no device 'no'"),
        ("interpolation --checkpoint nowhere", 1, "There is no checkpoint in nowhere"),
        ("compare --checkpoints digits line", 2, "Only models of the same data are compared"),
        (
            "compare --checkpoints digits digits --nfe 1 1 1",
            2,
            "--nfe takes one value, or one per model: 2, not 3",
        ),
        (
            "compare --checkpoints digits --num-heads 2",
            2,
            "needs an official checkpoint, and none is given",
        ),
        ("transport --checkpoint digits", 2, "a sample of digits has shape (1, 8, 8)"),
        ("transport --checkpoint line --nfe 1 1", 2, "--nfe takes one value"),
        ("transport --checkpoint line --num 0", 2, "num must be at least 1"),
        ("training --work-dir nowhere", 1, "There is no log of a run"),
        ("training --work-dir digits --out x.jpg", 2, "--out must end in .png, got 'x.jpg'"),
        ("training --work-dir digits --out no/such/x.png", 1, "No such folder"),
    ],
)
def test_mistakes(here, capsys, argv, status, message):
    words = argv.split() if "--out" in argv else [*argv.split(), "--out", "wrong.png"]

    assert main(["inspect", *words]) == status

    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert "Traceback" not in error
    assert not (here / "wrong.png").exists()


def test_debug_shows_the_traceback(here, capsys):
    argv = ["inspect", "interpolation", "--checkpoint", "digits", "--steps", "1", "--debug"]

    assert main([*argv, "--out", "wrong.png"]) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("runs/afm_digits", "afm_digits"),
        ("runs/afm_digits/", "afm_digits"),
        ("runs/afm_digits/checkpoints/000064000", "afm_digits at 64000"),
        ("runs/afm_digits/checkpoints/000000000", "afm_digits at 0"),
        ("s3://bucket/afm_digits", "afm_digits"),
        (".", "."),
    ],
)
def test_names_of_runs(path, name):
    assert name_of(path) == name
