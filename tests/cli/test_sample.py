"""Tests for afmlib.cli.sample: official checkpoints, labels, latents and their decoding."""

import subprocess
import sys
import tracemalloc

import fsspec
import numpy as np
import official_layout as layout
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny_autoencoder import save_autoencoder

from afmlib import load_checkpoint, load_official, sample
from afmlib.cli import main
from afmlib.data.diffusers_autoencoder import DiffusersAutoencoder
from afmlib.io.checkpoint import find_checkpoint, read_manifest, save_checkpoint

NAME = "xl2_1nfe_guided_FID2.38.pth"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A tiny official checkpoint of 1000 classes, and an autoencoder for its latents."""
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


def test_labels_by_name_and_index(run, files, tmp_path, capsys):
    vae = ["--vae", str(files / "vae")]

    assert run("--labels", "golden retriever", "7", *vae, "--out", "names.png") == 0
    said = capsys.readouterr().out
    assert run("--labels", "207", "cock", *vae, "--out", "numbers.png") == 0

    assert "classes: 207 (golden retriever); 7 (cock)" in said
    names, numbers = (Image.open(tmp_path / f"{name}.png") for name in ("names", "numbers"))
    assert names.size == (2 * 36 + 4, 2 * 36 + 4)
    assert names.tobytes() == numbers.tobytes()


def test_decoded_images_are_rounded(run, files, tmp_path):
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
def test_latents_without_an_autoencoder(out, written, run, files, tmp_path, capsys):
    assert run("--labels", "1", "--out", out) == 0

    said = capsys.readouterr().out
    assert f"4 latents, seed 0: {written} (not {out}" in said
    assert "--vae stabilityai/sd-vae-ft-mse" in said
    assert "pip install 'afmlib[vae]'" in said
    expected = sample(load_official(files / NAME, num_heads=2), [1] * 4)
    np.testing.assert_array_equal(np.load(tmp_path / written)["arr_0"], expected.numpy())
    assert [path.name for path in tmp_path.iterdir()] == [written]


def test_latents_in_safetensors(run, tmp_path, capsys):
    assert run("--labels", "1", "2", "--out", "latents.safetensors") == 0

    found = load_file(tmp_path / "latents.safetensors")
    assert found["samples"].shape == (4, 4, 4, 4)
    assert found["labels"].tolist() == [1, 2, 1, 2]
    assert "4 latents, seed 0: latents.safetensors\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["--labels", "goldn retriever"], 2, "Did you mean 'golden retriever', class 207?"),
        (["--labels", "crane"], 2, "give the index 134 (crane) or 517 (crane)"),
        (["--labels", "1000"], 2, "labels must be from 0 to 999, got 1000"),
        (["--nfe", "2"], 2, "This model was trained for nfe 1 only, not for 2"),
        (["--repeats", "2"], 2, "without t_embedder: repeats is 1, not 2"),
        (["--online"], 2, "--online is for a run"),
        (["--vae", "/no/such/vae"], 1, "The autoencoder /no/such/vae does not exist"),
    ],
)
def test_mistakes(options, status, message, run, tmp_path, capsys):
    assert run("--out", "x.png", *options) == status

    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_wrong_autoencoder(run, tmp_path, capsys):
    save_autoencoder(tmp_path / "other", scaling_factor=0.13025)

    assert run("--vae", "other") == 2

    assert "latent scale 0.18215, but other has latent scale 0.13025" in (capsys.readouterr().err)


def test_official_file_with_options(run, files, tmp_path, capsys):
    times = ("t_embedder",)
    state = layout.random_state(layout.generator(**layout.TINY, times=times))
    torch.save(state, files / "mine.pth")

    assert run("--out", "x.npz", name="mine.pth") == 2
    assert "give nfe (2 or 4) or repeats (2 or 4)" in capsys.readouterr().err
    assert run("--out", "x.npz", "--nfe", "2", "--prediction", "sample", name="mine.pth") == 0

    model = load_official(files / "mine.pth", nfe=2, prediction="sample", num_heads=2)
    expected = sample(model, [0, 1, 2, 3])
    np.testing.assert_array_equal(np.load(tmp_path / "x.npz")["arr_0"], expected.numpy())


def test_repeats_override_the_file_name(run, files, tmp_path, capsys):
    name = "xl2_57layer_1nfe.pth"
    state = layout.random_state(layout.generator(**layout.TINY, times=("t_embedder",)))
    torch.save(state, files / name)

    assert run("--out", "x.npz", name=name) == 2
    assert "has 57 layers" in capsys.readouterr().err
    assert run("--out", "x.npz", "--repeats", "2", name=name) == 0

    expected = sample(load_official(files / name, repeats=2, num_heads=2), [0, 1, 2, 3])
    np.testing.assert_array_equal(np.load(tmp_path / "x.npz")["arr_0"], expected.numpy())


def test_discriminator_makes_no_samples(run, files, capsys):
    torch.save(layout.random_state(layout.discriminator(**layout.TINY)), files / "d.pth")

    assert run(name="d.pth") == 2

    assert "holds a DiTDiscriminator, not a generator" in capsys.readouterr().err


def test_latents_to_a_url(run, tmp_path, capsys):
    memory = fsspec.filesystem("memory")

    for out, written in (("grid.png", "grid.npz"), ("all/", "all.npz")):
        assert run("--labels", "1", "--out", f"memory://latents/{out}") == 0

        assert f"memory://latents/{written} (not memory://latents/{out}:" in capsys.readouterr().out
        assert memory.isfile(f"memory://latents/{written}")
    assert list(tmp_path.iterdir()) == []


# --- Checkpoints of runs --------------------------------------------------------------------------


@pytest.fixture
def checkpoint(files, tmp_path, monkeypatch):
    """A checkpoint of a run on images of five named classes."""
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


def test_folder_of_images(checkpoint, tmp_path):
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


def test_labels_by_stored_names(checkpoint, tmp_path):
    def make(name, *labels):
        options = ["--checkpoint", checkpoint, "--num", "3", "--out", name]
        assert main(["sample", *options, "--labels", *labels]) == 0
        return np.load(tmp_path / name)

    by_name, by_number = make("a.npz", "barn owl", "crane"), make("b.npz", "1", "2")

    np.testing.assert_array_equal(by_name["arr_0"], by_number["arr_0"])
    assert by_name["arr_1"].tolist() == [1, 2, 1]


@pytest.mark.parametrize(
    ("names", "labels", "printed", "expected"),
    [
        (None, ["3"], "classes: 3\n", [3]),
        (["0", "1", "10", "2", "3"], ["2", "10"], "classes: 3 (2); 2 (10)\n", [3, 2]),
        (["0", "1", "2", "3", "4"], ["3"], "classes: 3 (3)\n", [3]),
        (["a", "b", "c", "d", "e"], ["3", "b"], "classes: 3 (d); 1 (b)\n", [3, 1]),
        (["3", "b", "c", "d", "e"], ["3", "1"], "classes: 0 (3); 1 (b)\n", [0, 1]),
    ],
)
def test_labels_are_names_before_indices(
    names, labels, printed, expected, checkpoint, tmp_path, capsys
):
    model = load_checkpoint(checkpoint)
    manifest = read_manifest(find_checkpoint(checkpoint))
    for key in ("format", "files"):
        manifest.pop(key)
    manifest["class_names"] = names
    save_checkpoint("named", {"generator_ema": model.generator.state_dict()}, {}, "", manifest)

    options = ["--num", str(len(labels)), "--out", "x.npz", "--labels", *labels]
    assert main(["sample", "--checkpoint", "named", *options]) == 0

    assert capsys.readouterr().out.startswith(printed)
    assert np.load(tmp_path / "x.npz")["arr_1"].tolist() == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--labels", "barn owls"], "Did you mean 'barn owl', class 1?"),
        (["--num-heads", "2"], "--num-heads is for official checkpoints"),
        (["--repeats", "2"], "--repeats is for official checkpoints"),
        (["--prediction", "sample"], "--prediction is for official checkpoints"),
        (["--vae", "x/y"], "needs no autoencoder"),
        (["--columns", "-3"], "--columns must be at least 1, got -3"),
        (["--columns", "0"], "--columns must be at least 1, got 0"),
    ],
)
def test_mistakes_with_a_checkpoint(options, message, checkpoint, capsys):
    assert main(["sample", "--checkpoint", checkpoint, *options]) == 2

    assert message in capsys.readouterr().err


def test_run_stores_class_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny = ["objective.generator.hidden_size=16", "objective.discriminator.hidden_size=16"]
    tiny += ["global_batch=8", "num_images=8", "evaluation.metrics=[]", "sample_every=null"]
    options = [word for setting in tiny for word in ("--set", setting)]
    assert main(["train", "afm_digits", "--work-dir", "run", *options]) == 0

    assert read_manifest(find_checkpoint("run"))["class_names"][:3] == ["zero", "one", "two"]


@pytest.mark.parametrize("out", ["x.png", "x.npz", "x.safetensors", "x/"])
def test_more_samples_than_memory(run, tmp_path, capsys, out):
    tracemalloc.start()
    status = run("--num", "1000000000000", "--out", out)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert status == 2
    error = capsys.readouterr().err
    assert "--num 1000000000000 needs 1.6e+04 GB of memory, and " in error
    assert "Choose a smaller --num" in error
    assert peak < 2**28
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("out", ["x.png", "x.safetensors"])
def test_outputs_that_do_not_stream_must_fit_in_memory(run, files, monkeypatch, capsys, out):
    monkeypatch.setattr("afmlib.io.bounds.ALWAYS_FREE", 2**13)
    monkeypatch.setattr("afmlib.io.bounds.available_memory", lambda: 2**15)
    monkeypatch.setattr("afmlib.io.checked_files.memory_shortage", lambda size: "")
    options = ["--num", "100", "--batch-size", "4", "--labels", "1"]
    if out == "x.png":
        options += ["--vae", str(files / "vae")]

    assert run(*options, "--out", out) == 2

    error = capsys.readouterr().err
    assert f"{out} needs " in error
    assert "or an .npz or a folder/ as --out" in error


def test_sample_imports_no_compiler(checkpoint):
    # The compiler takes a second, a third of the time of one sample.
    options = ["sample", "--checkpoint", checkpoint, "--num", "1"]
    program = (
        "import sys, torch\n"
        "from afmlib.cli import main\n"
        "before = set(sys.modules)\n"
        f"assert main({options}) == 0\n"
        "print(*sorted(set(sys.modules) - before))"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    imported = done.stdout.splitlines()[-1].split()
    heavy = ("torch._dynamo", "torch._inductor", "torch.distributed", "mmengine.hooks", "sympy")
    assert "afmlib.sampling" in imported
    assert [name for name in imported if name.startswith((*heavy, "cv2", "sklearn"))] == []
