"""Tests for afmlib.cli.sample: published files, classes by name, latents and their decoding."""

import fsspec
import numpy as np
import official_layout as layout
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny_autoencoder import save_autoencoder

from afmlib import load_official, sample
from afmlib.cli import main
from afmlib.data.diffusers_autoencoder import DiffusersAutoencoder
from afmlib.io.checkpoint import save_checkpoint

NAME = "xl2_1nfe_guided_FID2.38.pth"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A tiny published model of a thousand classes, and an autoencoder for its latents."""
    folder = tmp_path_factory.mktemp("published")
    state = layout.random_state(layout.generator(**layout.TINY | dict(classes=1000)))
    torch.save(state, folder / NAME)
    save_autoencoder(folder / "vae")
    return folder


@pytest.fixture
def run(files, tmp_path, monkeypatch):
    """Runs ``afmlib sample`` on the tiny model; returns its exit status."""
    monkeypatch.chdir(tmp_path)

    def run(*options, name=NAME):
        fixed = ["--checkpoint", str(files / name), "--num-heads", "2", "--num", "4"]
        return main(["sample", *fixed, *options])

    return run


def test_classes_by_name_and_by_number_make_the_same_picture(run, files, tmp_path, capsys):
    vae = ["--vae", str(files / "vae")]

    assert run("--labels", "golden retriever", "7", *vae, "--out", "names.png") == 0
    said = capsys.readouterr().out
    assert run("--labels", "207", "cock", *vae, "--out", "numbers.png") == 0

    assert "classes: 207 (golden retriever); 7 (cock)" in said
    names, numbers = (Image.open(tmp_path / f"{name}.png") for name in ("names", "numbers"))
    assert names.size == (2 * 36 + 4, 2 * 36 + 4)
    assert names.tobytes() == numbers.tobytes()


def test_decoded_images_are_rounded_into_the_array(run, files, tmp_path):
    options = ["--labels", "5", "9", "--seed", "3", "--batch-size", "3", "--vae"]

    assert run(*options, str(files / "vae"), "--out", "samples.npz") == 0

    model = load_official(files / NAME, num_heads=2)
    latents = sample(model, [5, 9, 5, 9], seed=3)
    with torch.no_grad():
        images = DiffusersAutoencoder(str(files / "vae")).decode(latents)
    exact = 127.5 * (images.double() + 1).permute(0, 2, 3, 1).numpy()
    found = np.load(tmp_path / "samples.npz")
    assert found["arr_0"].dtype == np.uint8
    assert found["arr_0"].shape == (4, 8, 8, 3)
    assert np.abs(found["arr_0"] - exact).max() < 0.5 + 1e-3  # Cut off it would be up to 1.
    assert found["arr_1"].tolist() == [5, 9, 5, 9]


@pytest.mark.parametrize(("out", "written"), [("grid.png", "grid.npz"), ("all/", "all.npz")])
def test_without_an_autoencoder_latents_are_written_and_it_is_said(
    out, written, run, files, tmp_path, capsys
):
    assert run("--labels", "1", "--out", out) == 0

    said = capsys.readouterr().out
    assert f"4 latents, seed 0: {written} (not {out}" in said
    assert "--vae stabilityai/sd-vae-ft-mse" in said
    assert "pip install 'afmlib[vae]'" in said
    expected = sample(load_official(files / NAME, num_heads=2), [1] * 4)
    np.testing.assert_array_equal(np.load(tmp_path / written)["arr_0"], expected.numpy())
    assert [path.name for path in tmp_path.iterdir()] == [written]


def test_latents_go_into_safetensors_as_asked(run, tmp_path, capsys):
    assert run("--labels", "1", "2", "--out", "latents.safetensors") == 0

    found = load_file(tmp_path / "latents.safetensors")
    assert found["samples"].shape == (4, 4, 4, 4)
    assert found["labels"].tolist() == [1, 2, 1, 2]
    assert "4 latents, seed 0: latents.safetensors\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["--labels", "goldn retriever"], 2, "Did you mean 'golden retriever', class 207?"),
        (["--labels", "crane"], 2, "give 134 (crane) or 517 (crane) by number"),
        (["--labels", "1000"], 2, "Labels are 0 to 999; got 1000"),
        (["--nfe", "2"], 2, "This model was trained for nfe 1 alone, not for 2"),
        (["--repeats", "2"], 2, "without t_embedder: repeats is 1, not 2"),
        (["--online"], 2, "--online is for a run"),
        (["--vae", "/no/such/vae"], 1, "There is no autoencoder /no/such/vae"),
    ],
)
def test_what_does_not_fit_is_one_sentence(options, status, message, run, tmp_path, capsys):
    assert run("--out", "x.png", *options) == status

    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_autoencoder_of_other_models_is_refused(run, tmp_path, capsys):
    save_autoencoder(tmp_path / "other", scaling_factor=0.13025)

    assert run("--vae", "other") == 2

    assert "latent scale 0.18215, but other has latent scale 0.13025" in (capsys.readouterr().err)


def test_a_file_without_a_telling_name_takes_options(run, files, tmp_path, capsys):
    times = ("t_embedder",)
    state = layout.random_state(layout.generator(**layout.TINY, times=times))
    torch.save(state, files / "mine.pth")

    assert run("--out", "x.npz", name="mine.pth") == 2
    assert "give nfe (2 or 4) of a multi-step model" in capsys.readouterr().err
    assert run("--out", "x.npz", "--nfe", "2", "--prediction", "sample", name="mine.pth") == 0

    model = load_official(files / "mine.pth", nfe=2, prediction="sample", num_heads=2)
    expected = sample(model, [0, 1, 2, 3])
    np.testing.assert_array_equal(np.load(tmp_path / "x.npz")["arr_0"], expected.numpy())


def test_repeats_are_taken_where_the_name_says_others(run, files, tmp_path, capsys):
    name = "xl2_57layer_1nfe.pth"
    state = layout.random_state(layout.generator(**layout.TINY, times=("t_embedder",)))
    torch.save(state, files / name)

    assert run("--out", "x.npz", name=name) == 2
    assert "says 57 layers" in capsys.readouterr().err
    assert run("--out", "x.npz", "--repeats", "2", name=name) == 0

    expected = sample(load_official(files / name, repeats=2, num_heads=2), [0, 1, 2, 3])
    np.testing.assert_array_equal(np.load(tmp_path / "x.npz")["arr_0"], expected.numpy())


def test_a_discriminator_makes_no_samples(run, files, capsys):
    torch.save(layout.random_state(layout.discriminator(**layout.TINY)), files / "d.pth")

    assert run(name="d.pth") == 2

    assert "holds a DiTDiscriminator, not a generator" in capsys.readouterr().err


def test_latents_in_place_of_pictures_go_to_a_url(run, tmp_path, capsys):
    memory = fsspec.filesystem("memory")

    for out, written in (("grid.png", "grid.npz"), ("all/", "all.npz")):
        assert run("--labels", "1", "--out", f"memory://latents/{out}") == 0

        assert f"memory://latents/{written} (not memory://latents/{out}:" in capsys.readouterr().out
        assert memory.isfile(f"memory://latents/{written}")
    assert list(tmp_path.iterdir()) == []


# --- Checkpoints of runs --------------------------------------------------------------------------


@pytest.fixture
def checkpoint(files, tmp_path, monkeypatch):
    """A checkpoint of a run on images of three named classes."""
    monkeypatch.chdir(tmp_path)
    path = files / "images.pth"
    torch.save(layout.random_state(layout.generator(**layout.TINY, channels=3)), path)
    model = load_official(path, num_heads=2)
    spec = dict(type="DiTGenerator", input_size=4, in_channels=3, hidden_size=16, depth=2)
    manifest = dict(
        generator=spec | dict(num_heads=2, num_classes=5),
        conventions=model.conventions.as_dict(),
        class_names=["red kite", "barn owl", "crane", "wren", "crane fly"],
    )
    save_checkpoint("run", {"generator_ema": model.generator.state_dict()}, {}, "", manifest)
    return "run"


def test_single_pictures_go_into_a_folder_here_and_at_a_url(checkpoint, tmp_path):
    there = f"memory://{tmp_path.name}/pictures/"
    for out in ("pictures/", there):
        assert main(["sample", "--checkpoint", checkpoint, "--num", "3", "--out", out]) == 0

    here = {path.name: path.read_bytes() for path in (tmp_path / "pictures").iterdir()}
    memory = fsspec.filesystem("memory")
    assert sorted(here) == ["000000.png", "000001.png", "000002.png"]
    assert {path.rsplit("/", 1)[-1]: memory.cat(path) for path in memory.find(there)} == here
    with Image.open(tmp_path / "pictures/000002.png") as picture:
        assert (picture.size, picture.mode) == ((4, 4), "RGB")
    assert {path.name for path in tmp_path.iterdir()} == {"run", "pictures"}


def test_the_names_of_the_data_are_known(checkpoint, tmp_path):
    def make(name, *labels):
        options = ["--checkpoint", checkpoint, "--num", "3", "--out", name]
        assert main(["sample", *options, "--labels", *labels]) == 0
        return np.load(tmp_path / name)

    by_name, by_number = make("a.npz", "barn owl", "crane"), make("b.npz", "1", "2")

    np.testing.assert_array_equal(by_name["arr_0"], by_number["arr_0"])
    assert by_name["arr_1"].tolist() == [1, 2, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--labels", "barn owls"], "Did you mean 'barn owl', class 1?"),
        (["--num-heads", "2"], "--num-heads is for official checkpoints"),
        (["--repeats", "2"], "--repeats is for official checkpoints"),
        (["--prediction", "sample"], "--prediction is for official checkpoints"),
        (["--vae", "x/y"], "needs no autoencoder"),
    ],
)
def test_what_does_not_fit_a_checkpoint_is_refused(options, message, checkpoint, capsys):
    assert main(["sample", "--checkpoint", checkpoint, *options]) == 2

    assert message in capsys.readouterr().err


def test_a_run_stores_the_names_of_its_classes(tmp_path, monkeypatch):
    from afmlib.io.checkpoint import find_checkpoint, read_manifest

    monkeypatch.chdir(tmp_path)
    tiny = ["objective.generator.hidden_size=16", "objective.discriminator.hidden_size=16"]
    tiny += ["global_batch=8", "num_images=8", "evaluation.metrics=[]", "sample_every=null"]
    options = [word for setting in tiny for word in ("--set", setting)]
    assert main(["train", "afm_digits", "--work-dir", "run", *options]) == 0

    assert read_manifest(find_checkpoint("run"))["class_names"] == list("0123456789")
