"""Tests for afmlib.hub.diffusers_folder, afmlib.hub.pipeline and the port of AFM to diffusers."""

import json
import re

import official_layout as layout
import pytest
import torch
from diffusers import DiffusionPipeline, DiTPipeline
from diffusers.models.embeddings import Timesteps
from safetensors.torch import save_file
from tiny_autoencoder import save_autoencoder

from afmlib import load_checkpoint, load_official, sample, save_pretrained
from afmlib.cli import main
from afmlib.data.tiny_autoencoder import TinyAutoencoder
from afmlib.hub.pipeline import AFMPipeline
from afmlib.io.checkpoint import CheckpointError
from afmlib.nn.embeddings import position_embedding

DIT = dict(type="DiTGenerator", input_size=4, hidden_size=16, depth=2, num_heads=2, num_classes=3)
TIMED = DIT | dict(use_timestep_src=True)
ANY = TIMED | dict(use_timestep_tgt=True, time_scale=1.0, class_dropout_prob=0.1)
DEEP = dict(type="RepeatDepth", repeats=2, generator=TIMED)
MLP = dict(type="MLPGenerator", in_channels=2, hidden_size=8, num_classes=3)
LATENTS = 0.18215
STOCK = [
    (DIT, "SamplePrediction", 1),
    (TIMED, "SamplePrediction", 1),
    (TIMED, "VelocityPrediction", 4),
    (ANY, "VelocityPrediction", 2),
    (TIMED | dict(hidden_size=64), "InstantaneousVelocity", 50),
]
OWN = [
    (DEEP, "SamplePrediction", 1),
    (TIMED | dict(qk_norm=True), "VelocityPrediction", 2),
    (TIMED, "SamplePrediction", 2),
]


def export(capsys, *options):
    assert main(["export", "--checkpoint", "run", "--format", "diffusers", *options]) == 0
    return capsys.readouterr().out


def images_of(model, labels, nfe=None, vae="vae"):
    """Ours, with the noises that a pipeline draws."""
    noises = torch.randn(len(labels), *model.conventions.latent_shape, generator=seeded())
    made = sample(model, labels, noises=noises, nfe=nfe, autoencoder=vae)
    return (made / 2 + 0.5).clamp(0, 1)


def seeded():
    return torch.Generator().manual_seed(5)


@pytest.mark.parametrize(("spec", "parameterization", "nfe"), STOCK)
def test_pipeline_of_diffusers_makes_our_images(spec, parameterization, nfe, run, capsys):
    run(spec, parameterization, nfe, LATENTS)
    save_autoencoder("vae", scaling_factor=LATENTS)

    said = export(capsys, "--out", "out", "--vae", "vae")

    pipeline = DiffusionPipeline.from_pretrained("out", low_cpu_mem_usage=False)
    assert type(pipeline) is DiTPipeline
    assert "DiffusionPipeline.from_pretrained" in said
    assert pipeline.labels == dict(cat=0, dog=1, owl=2)
    options = dict(guidance_scale=1.0, num_inference_steps=nfe, output_type="pt")
    made = pipeline([2, 0], generator=seeded(), **options).images
    torch.testing.assert_close(made, images_of(load_checkpoint("run"), [2, 0]), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("spec", "parameterization", "nfe"), OWN)
def test_other_models_use_our_pipeline(spec, parameterization, nfe, run, capsys):
    run(spec, parameterization, nfe, LATENTS)
    save_autoencoder("vae", scaling_factor=LATENTS)

    said = export(capsys, "--out", "out", "--vae", "vae")

    assert "AFMPipeline.from_pretrained" in said
    pipeline = AFMPipeline.from_pretrained("out", low_cpu_mem_usage=False)
    made = pipeline(["owl", 0], generator=seeded(), output_type="pt").images
    model = load_checkpoint("run")
    torch.testing.assert_close(made, images_of(model, [2, 0]), rtol=0, atol=1e-5)
    again = load_checkpoint("out")
    assert again.conventions == model.conventions
    assert torch.equal(sample(again, ["owl", 1]), sample(model, ["owl", 1]))


def test_images_without_an_autoencoder(run, capsys, tmp_path):
    run()
    export(capsys, "--out", "out", "--license", "mit")
    card = (tmp_path / "out/README.md").read_text()

    namespace = {}
    exec(re.search(r"```python\n(.*?)```", card, re.DOTALL)[1], namespace)  # The card is ours.

    assert [image.size for image in namespace["images"]] == [(4, 4), (4, 4)]
    assert "license: mit" in card
    assert "library_name: diffusers" in card
    assert main(["sample", "--checkpoint", "out", "--out", "a.png"]) == 0


@pytest.mark.parametrize("ema", [False, 0.5])
def test_pipeline_has_one_set_of_weights(ema, run, capsys):
    run()
    export(capsys, "--out", "out")

    with pytest.raises(ValueError, match=f"ema={ema} is for a run; out has only one set"):
        load_checkpoint("out", ema=ema)
    assert main(["sample", "--checkpoint", "out", "--online", "--out", "a.png"]) == 2


def test_autoencoder_of_this_library_goes_along(run, capsys):
    tiny = TinyAutoencoder(in_channels=1, size=16, latent_channels=4, width=16)
    tiny.scale.fill_(0.5)
    run(DIT | dict(input_size=tiny.latent_shape[1]), scale=0.5, autoencoder=tiny)

    export(capsys, "--out", "out")
    save_pretrained("run", "folder")

    pipeline = AFMPipeline.from_pretrained("out", low_cpu_mem_usage=False)
    made = pipeline(["owl", 0], generator=seeded(), output_type="pt").images
    model = load_checkpoint("run")
    torch.testing.assert_close(made, images_of(model, [2, 0], vae=model.autoencoder))
    for name in ("out", "folder"):
        images = sample(name, ["owl"], output="uint8")
        assert torch.equal(images, sample(model, ["owl"], output="uint8"))


def test_frequencies_of_diffusers_differ():
    """The reason for the table of times: if it goes, the table may go."""
    times = torch.tensor([750.0])
    stock = Timesteps(256, flip_sin_to_cos=True, downscale_freq_shift=1)(times)
    official = Timesteps(256, flip_sin_to_cos=True, downscale_freq_shift=0)(times)

    assert (stock - official).abs().max() > 0.5


@pytest.mark.parametrize(
    ("scale", "spec", "options", "message"),
    [
        (LATENTS, DIT, [], "A pipeline of latents needs their autoencoder, such as --vae"),
        (1.0, MLP, [], "makes images"),
        (1.0, DIT | dict(in_channels=1), ["--out", "memory://x"], "writes to a local disk only"),
        (1.0, DIT | dict(in_channels=1), ["--out", "x.npz"], "writes a folder"),
        (1.0, DIT | dict(in_channels=1), ["--out", "run"], "run is not empty"),
    ],
)
def test_mistakes(scale, spec, options, message, run, capsys):
    run(spec, scale=scale)

    options = options or ["--out", "out"]
    assert main(["export", "--checkpoint", "run", "--format", "diffusers", *options]) == 2

    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert error.count("\n") == 1


# --- The port of the official checkpoints ---------------------------------------------------------

BLOCK = {
    "adaLN_modulation.1": "norm1.linear",
    "attn.proj": "attn1.to_out.0",
    "mlp.fc1": "ff.net.0.proj",
    "mlp.fc2": "ff.net.2",
}
EMBEDDER = {"mlp.0": "timestep_embedder.linear_1", "mlp.2": "timestep_embedder.linear_2"}
OUTER = {
    "x_embedder.proj": "pos_embed.proj",
    "final_layer.adaLN_modulation.1": "proj_out_1",
    "final_layer.linear": "proj_out_2",
}


def ported(state):
    """The names of the port, written from its converter."""
    made, table = {}, state["y_embedder.embedding_table.weight"]
    for part in ("weight", "bias"):
        for old, new in OUTER.items():
            made[f"transformer.{new}.{part}"] = state[f"{old}.{part}"]
        for index in range(2):
            here, there = f"blocks.{index}", f"transformer.transformer_blocks.{index}"
            for old, new in BLOCK.items():
                made[f"{there}.{new}.{part}"] = state[f"{here}.{old}.{part}"]
            for letter, third in zip("qkv", state[f"{here}.attn.qkv.{part}"].chunk(3), strict=True):
                made[f"{there}.attn1.to_{letter}.{part}"] = third
            for old, new in EMBEDDER.items():
                shape = dict(weight=(16, 256 if old == "mlp.0" else 16), bias=(16,))[part]
                values = state.get(f"t_embedder.{old}.{part}", torch.zeros(shape))
                made[f"{there}.norm1.emb.{new}.{part}"] = values
            name = f"{there}.norm1.emb.class_embedder.embedding_table.weight"
            made[name] = torch.cat([table, torch.zeros(1, 16)])
    return {name: value.clone() for name, value in made.items()}


@pytest.mark.parametrize(
    ("name", "times", "settings"),
    [
        ("b2_1nfe_guided_FID3.05", (), dict(pred_type="x", num_inference_steps=1)),
        ("xl2_2nfe_guided_FID2.11", ("t_embedder",), dict(pred_type="v", num_inference_steps=2)),
        ("xl2_112layer_1nfe", ("t_embedder",), dict(pred_type="x", num_inference_steps=1)),
    ],
)
@pytest.mark.parametrize("names", ["diffusers", "official"])
def test_port_is_read(name, times, settings, names, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state = layout.random_state(layout.generator(**layout.TINY, times=times))
    state["pos_embed"] = position_embedding(2, 16)  # The port computes it.
    torch.save(state, f"{name}.pth")
    deep = "layer" in name
    config = dict(
        _class_name="AFMGeneratorDeep2DModel" if deep else "AFMGenerator2DModel",
        architecture="deep" if deep else "standard",
        repeat=4 if deep else 1,
        use_t_src=bool(times) and not deep,
        use_t_tgt=False,
        input_size=4,
        patch_size=2,
        hidden_size=16,
        depth=2,
        num_heads=2,
        num_classes=5,
        in_channels=4,
        **settings,
    )
    folder = tmp_path / "AFM"
    (folder / "generator").mkdir(parents=True)
    index = dict(_class_name=["pipeline", "AFMPipeline"])
    (folder / "model_index.json").write_text(json.dumps(index))
    (folder / "pipeline.py").write_text("raise SystemExit('code of the repository ran')")
    (folder / "generator/config.json").write_text(json.dumps(config))
    weights = ported(state) if names == "diffusers" else state
    save_file(weights, folder / "generator/diffusion_pytorch_model.safetensors")

    model = load_checkpoint("AFM")

    expected = load_official(f"{name}.pth", num_heads=2)
    assert model.conventions == expected.conventions
    assert torch.equal(sample(model, [0, 4]), sample(expected, [0, 4]))
    assert main(["sample", "--checkpoint", "AFM", "--num", "2", "--out", "x.npz"]) == 0


def test_other_pipelines_are_named(tmp_path):
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')

    with pytest.raises(CheckpointError, match="a pipeline of diffusers without a generator of AFM"):
        load_checkpoint(tmp_path)
    (tmp_path / "generator").mkdir()
    (tmp_path / "generator/config.json").write_text('{"_class_name": "Other"}')
    save_file({"x": torch.zeros(1)}, tmp_path / "generator/diffusion_pytorch_model.safetensors")
    with pytest.raises(CheckpointError, match="cannot be built: it has no 'generator'"):
        load_checkpoint(tmp_path)
