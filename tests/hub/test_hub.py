"""Tests for afmlib.hub and afmlib.io.hub_files, against a server of the Hub's API on loopback."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import huggingface_hub.constants
import pytest
import torch
import yaml

from afmlib import (
    from_pretrained,
    load_checkpoint,
    load_official,
    push_to_hub,
    sample,
    save_pretrained,
)
from afmlib.cli import main
from afmlib.io.checkpoint import CheckpointError, find_checkpoint, read_config, save_checkpoint

DIT = dict(type="DiTGenerator", input_size=4, hidden_size=16, depth=2, num_heads=2, num_classes=3)
FILES = {"README.md", "config.json", "config.yaml", "model.safetensors", "samples.png"}


def header(card):
    return yaml.safe_load(card.split("---\n")[1])


def test_pushed_model_comes_back(hub, run):
    generator = run()

    url = push_to_hub("run", "org/name", license="mit")

    assert url == f"{hub.url}/org/name"
    assert set(hub.repos["org/name"]) == FILES
    again = from_pretrained("org/name")
    assert again.class_names == ["cat", "dog", "owl"]
    assert torch.equal(sample(again, ["owl", 0]), sample("run", ["owl", 0]))
    state = again.generator.state_dict()
    assert all(torch.equal(state[name], value) for name, value in generator.state_dict().items())


def test_commands(hub, run, capsys):
    run()

    assert main(["push", "org/name", "--checkpoint", "run", "--license", "mit", "--private"]) == 0
    assert hub.private["org/name"]
    said = capsys.readouterr().out
    assert "afmlib sample --checkpoint hf://org/name" in said
    assert main(["sample", "--checkpoint", "hf://org/name", "--out", "a.npz"]) == 0
    assert main(["sample", "--checkpoint", "run", "--out", "b.npz"]) == 0

    assert Path("a.npz").read_bytes() == Path("b.npz").read_bytes()


def test_second_load_downloads_nothing(hub, run, monkeypatch):
    run()
    push_to_hub("run", "org/name")
    one = from_pretrained("org/name")
    hub.requests.clear()

    two = load_checkpoint("hf://org/name@main")

    assert not any("resolve" in request for request in hub.requests)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    offline = load_checkpoint("hf://org/name")
    assert torch.equal(sample(one, [1]), sample(two, [1]))
    assert torch.equal(sample(one, [1]), sample(offline, [1]))


def test_fresh_process_reads_hf_endpoint(hub, run, tmp_path):
    run()
    push_to_hub("run", "org/name")
    home = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")}
    code = "from afmlib.io.hub_files import hub_copy; print(hub_copy('hf://org/name'))"

    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **home}, capture_output=True, text=True
    )

    folder = done.stdout.strip()
    assert folder.startswith(str(tmp_path / "home")), done.stderr
    assert torch.equal(sample(folder, [1]), sample("run", [1]))


def test_file_in_a_repository(hub, run, monkeypatch):
    run(
        dict(type="DiTGenerator", input_size=4, hidden_size=16, depth=2, num_heads=2, num_classes=3)
    )
    assert main(["export", "--checkpoint", "run", "--out", "b2_1nfe.pth"]) == 0
    hub.repos["org/name"] = {"models/b2_1nfe.pth": Path("b2_1nfe.pth").read_bytes()}
    hub.private["org/name"] = False

    remote = load_checkpoint("hf://org/name/models/b2_1nfe.pth", num_heads=2)

    local = load_official("b2_1nfe.pth", num_heads=2)
    assert torch.equal(sample(remote, [1]), sample(local, [1]))


def test_run_on_the_hub_is_read(hub, run, tmp_path):
    run()
    files = {
        f"runs/{path.relative_to(tmp_path)}": path.read_bytes()
        for path in (tmp_path / "run").rglob("*")
        if path.is_file()
    }
    hub.repos["org/runs"], hub.private["org/runs"] = files, False

    remote = load_checkpoint("hf://org/runs/runs/run")

    assert torch.equal(sample(remote, [1]), sample("run", [1]))


def test_card_and_config(run, tmp_path):
    run(config="data: {type: Digits}\ninit_from: hf://org/base\n")

    save_pretrained("run", "mine", license="cc-by-4.0")

    assert {path.name for path in (tmp_path / "mine").iterdir()} == FILES
    card = (tmp_path / "mine/README.md").read_text()
    found = header(card)
    assert found["license"] == "cc-by-4.0"
    assert found["base_model"] == "org/base"
    assert found["pipeline_tag"] == "unconditional-image-generation"
    (result,) = found["model-index"][0]["results"]
    assert result["dataset"]["type"] == "digits"
    assert result["metrics"][0] | dict(args=None) == dict(
        type="frechet_distance", name="frechet_distance", value=7.25, args=None
    )
    assert "![Samples](samples.png)" in card
    assert "0 cat, 1 dog, 2 owl" in card
    assert "pip install 'afmlib[hf]'" in card
    config = json.loads((tmp_path / "mine/config.json").read_text())
    assert config["library_name"] == "afmlib"
    assert config["conventions"]["latent_shape"] == [1, 4, 4]
    huggingface_hub.RepoCard(card).data.to_dict()  # The Hub's own parser reads the header.
    assert huggingface_hub.ModelCard(card).data.eval_results[0].metric_value == 7.25


def test_commands_of_the_card_work(run, tmp_path, monkeypatch):
    run()
    save_pretrained("run", "mine")
    card = (tmp_path / "mine/README.md").read_text()

    namespace = {}
    exec(re.search(r"```python\n(.*?)```", card, re.DOTALL)[1], namespace)  # The card is ours.
    command = re.search(r"^afmlib (.*)$", card, re.MULTILINE)[1]

    assert [image.size for image in namespace["samples"]] == [(4, 4), (4, 4)]
    assert main(command.split()) == 0


def test_card_of_latents_decodes(run, tmp_path):
    from tiny_autoencoder import save_autoencoder

    run(
        dict(
            type="DiTGenerator", input_size=4, hidden_size=16, depth=2, num_heads=2, num_classes=3
        ),
        scale=0.18215,
    )
    save_autoencoder("vae")

    save_pretrained("run", "plain")
    save_pretrained("run", "pictured", autoencoder="vae")

    plain = (tmp_path / "plain/README.md").read_text()
    assert not (tmp_path / "plain/samples.png").exists()
    assert "![Samples]" not in plain
    assert (tmp_path / "pictured/samples.png").exists()
    command = re.search(r"^afmlib (.*)$", plain, re.MULTILINE)[1]
    assert "pip install 'afmlib[hf,vae]'" in plain
    argv = command.replace("stabilityai/sd-vae-ft-mse", "vae").split()
    assert main(argv) == 0
    assert (tmp_path / "samples.png").exists()


def test_export_of_an_export_keeps_what_it_knows(run, tmp_path):
    run()
    save_pretrained("run", "copy_1", license="mit", base_model="org/base")

    save_pretrained("copy_1", "copy_2")
    save_pretrained(load_checkpoint("copy_1"), "copy_3")

    for name in ("copy_2", "copy_3"):
        card = (tmp_path / name / "README.md").read_text()
        assert card.replace(name, "copy_1") == (tmp_path / "copy_1/README.md").read_text()


def test_export_is_a_checkpoint(run, tmp_path):
    run()
    save_pretrained("run", "mine")
    assert find_checkpoint("mine") == "mine"
    assert read_config("mine") == read_config(find_checkpoint("run"))
    with pytest.raises(CheckpointError, match=r"has no generator\.safetensors"):
        load_checkpoint("mine", ema=False)


def test_export_of_older_versions_opens(run, tmp_path):
    generator = run()
    model = load_checkpoint("run")
    spec = dict(type="DiTGenerator", input_size=4, hidden_size=16, depth=2, num_heads=2)
    manifest = dict(
        conventions=model.conventions.as_dict(), generator=spec | dict(num_classes=3, in_channels=1)
    )
    save_checkpoint("old", dict(generator_ema=generator.state_dict()), None, None, manifest)

    assert torch.equal(sample("old", [1]), sample(model, [1]))


@pytest.mark.parametrize("damage", ["weights", "config", "foreign"])
def test_damaged_export_is_named(damage, run, tmp_path):
    run()
    save_pretrained("run", "mine")
    path = tmp_path / "mine" / ("model.safetensors" if damage == "weights" else "config.json")
    content = path.read_bytes()
    changed = {
        "weights": content[:-1] + bytes([content[-1] ^ 1]),
        "config": content.replace(b'"nfe": 1', b'"nfe": 7'),
        "foreign": b'{"architectures": ["ResNet"]}',
    }
    path.write_bytes(changed[damage])

    with pytest.raises(CheckpointError, match=f"{path.name} is corrupt"):
        from_pretrained(tmp_path / "mine")


# --- Mistakes ---


def test_without_login(hub, run, monkeypatch, capsys):
    run()
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")

    assert main(["push", "org/name", "--checkpoint", "run"]) == 1

    error = capsys.readouterr().err
    assert "hf://org/name: access denied (401). Log in with: hf auth login" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("org/none", "hf://org/none: there is no such repository, or it is private"),
        ("nowhere", "There is no folder nowhere. A repository of the Hub is named OWNER/NAME."),
        ("./org", "There is no folder ./org"),
        ("org/empty", "There is no checkpoint in hf://org/empty"),
    ],
)
def test_missing_models(name, message, hub):
    hub.repos["org/empty"], hub.private["org/empty"] = {"notes.txt": b"hello"}, False

    with pytest.raises((OSError, CheckpointError), match=re.escape(message)):
        from_pretrained(name)


def test_missing_official_file_names_all_thirteen(hub):
    repo = "ByteDance-Seed/Adversarial-Flow-Models"
    hub.repos[repo], hub.private[repo] = {"README.md": b"hello"}, False

    with pytest.raises(FileNotFoundError, match=r"xl2_4nfe_guided_FID2\.03\.pth") as caught:
        load_checkpoint(f"hf://{repo}/models/xl2_1nfe.pth")

    assert str(caught.value).count("_FID") == 13


def test_missing_revision(hub, run):
    run()
    push_to_hub("run", "org/name")

    with pytest.raises(FileNotFoundError, match="hf://org/name@v9 has no such revision"):
        from_pretrained("org/name", revision="v9")


def test_unreachable_hub_without_a_copy(hub, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")

    with pytest.raises(OSError, match="hf://org/name cannot be reached, and there is no copy"):
        from_pretrained("org/name")


def test_missing_package_is_one_sentence(monkeypatch, run):
    run()
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)

    for call in (lambda: from_pretrained("org/name"), lambda: push_to_hub("run", "org/name")):
        with pytest.raises(OSError, match=r"needs the package huggingface_hub: pip install"):
            call()


@pytest.mark.parametrize("name", ["name", "a/b/c", "datasets/x", "org/name@v1", "or g/name"])
def test_wrong_names(name, run):
    run()

    with pytest.raises(ValueError, match="is named OWNER/NAME"):
        push_to_hub("run", name)


def test_folder_must_be_empty(run):
    run()

    with pytest.raises(FileExistsError, match="run is not empty"):
        save_pretrained("run", "run")


def test_code_of_a_repository_is_not_downloaded(hub, run, tmp_path):
    run()
    push_to_hub("run", "org/name")
    hub.repos["org/name"] |= {"pipeline.py": b"raise SystemExit", "pytorch_model.bin": b"pickle"}

    from_pretrained("org/name")

    names = {path.name for path in (tmp_path / "cache").rglob("*")}
    assert "model.safetensors" in names
    assert not names & {"pipeline.py", "pytorch_model.bin"}
