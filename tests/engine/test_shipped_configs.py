"""Every shipped config of a method takes two steps, with small networks on what data are here."""

from pathlib import Path

import pytest
import torch
from tiny_autoencoder import save_autoencoder

from afmlib.config import config_names, load_config
from afmlib.data.latent_folder import write_latents
from afmlib.engine import Runner
from afmlib.interfaces import FeatureExtractor
from afmlib.registry import EXTRACTORS

METHODS = ("consistency", "ect", "scm", "meanflow", "shortcut", "imf", "alphaflow", "soflow", "tvm")
OTHERS = ("afm", "afm_2nfe", "afm_any", "afm_deep", "gan", "flow_matching")
"""Methods that are tried elsewhere too, here on the emoji."""

EMOJI = Path(__file__).parents[2] / "benchmarks/data/emoji32.npz"
ALWAYS = [
    "global_batch=8",
    "num_images=16",
    "evaluation.metrics=[]",
    "evaluation.extractor=null",
    "log.every=8",
    "log.grid_rows=1",
]
TRANSFORMER = ["hidden_size=8", "depth=1", "num_heads=2"]
UNET = ["widths=[8,8]", "layers_per_block=1", "attention_sizes=[16]"]
HEADS = ("imf",)
"""Methods whose network has a velocity head, which an MLP does not have."""


@pytest.fixture(scope="module")
def latents(tmp_path_factory):
    """Random latents in the place of those of ImageNet."""
    folder = tmp_path_factory.mktemp("latents")
    means, labels = torch.randn(10, 2, 4, 4, 4), torch.arange(10) % 3
    write_latents(str(folder), means, means.exp(), labels, latent_scale=0.2, num_classes=3)
    return folder


def names():
    """Those of your own images need some: see tests/config/test_own_images.py."""
    named = [name for name in config_names() if not name.endswith(("64", "128", "_images32"))]
    own = [name for name in named if name.rsplit("_", 1)[0] in METHODS]
    return own + [f"{method}_emoji" for method in OTHERS]


def networks(objective):
    """Returns where the transformers of an objective are."""
    players = [player for player in ("generator", "discriminator") if player in objective]
    return [
        f"{player}.generator" if "generator" in objective[player] else player for player in players
    ]


@pytest.mark.parametrize("name", names())
def test_config_trains_two_steps(name, latents, tmp_path):
    overrides = list(ALWAYS)
    config = load_config(name)
    if config["objective"]["generator"]["type"] == "unet_cifar":
        overrides += [f"objective.generator.{value}" for value in UNET]
        overrides += ["data.type=ImageArchive", f"data.path={EMOJI}", "num_workers=0"]
    elif config["objective"]["generator"]["type"] != "MLPGenerator":
        places = networks(config["objective"])
        overrides += [f"objective.{place}.{value}" for place in places for value in TRANSFORMER]
        if name.startswith(HEADS):
            overrides += ["objective.generator.velocity_depth=1"]
    if config["data"]["type"] == "LatentFolder":
        overrides += [f"data.path={latents}", "num_workers=0"]
    if config["data"]["type"] == "ImageArchive":
        overrides += [f"data.path={EMOJI}"]

    runner = Runner(load_config(name, overrides), tmp_path / "run", device="cpu")
    before = [parameter.clone() for parameter in runner.objective.generator.parameters()]
    runner.train()

    assert runner.train_loop.iter == 2
    after = list(runner.objective.generator.parameters())
    assert any(not torch.equal(*pair) for pair in zip(before, after, strict=True))
    assert all(parameter.isfinite().all() for parameter in after)


@EXTRACTORS.register_module()
class ShippedSquares(FeatureExtractor):
    """Means over squares: features of images of any size, without a file of weights."""

    name = "squares"

    def forward(self, images):
        return images.unfold(2, 32, 32).unfold(3, 32, 32).mean((4, 5)).flatten(1)


@pytest.mark.parametrize("name", ["afm_b2", "afm_auto_xl2"])
def test_controller_replaces_the_paper_phases(name, tmp_path):
    """As docs/phases.md says, on a few random latents of the size of the published ones."""
    means, labels = torch.randn(10, 2, 4, 32, 32), torch.arange(10) % 3
    write_latents(str(tmp_path / "latents"), means, means.exp(), labels, 0.18215, num_classes=3)
    save_autoencoder(tmp_path / "vae", scaling_factor=0.18215)
    places = networks(load_config(name)["objective"])
    overrides = [
        *(f"objective.{place}.{value}" for place in places for value in TRANSFORMER),
        "phases={every: 8}",
        "global_batch=8",
        "num_images=16",
        f"data.path={tmp_path}/latents",
        "num_workers=0",
        "evaluation.extractor.type=ShippedSquares",
        f"evaluation.autoencoder.path={tmp_path}/vae",
        "evaluation.num_samples=8",
    ]

    runner = Runner(load_config(name, overrides), tmp_path / "run", device="cpu")
    runner.train()

    assert runner.phases.controller.memory.best < float("inf")
    assert not (tmp_path / "run/evaluations.jsonl").exists()


def test_every_method_is_on_every_scale():
    scales = ("digits", "emoji", "gaussians1d", "gaussians2d", "b2", "m2", "l2", "xl2")

    expected = {f"{method}_{scale}" for method in METHODS for scale in scales}
    assert expected - set(names()) == {
        f"{method}_gaussians{n}d" for method in HEADS for n in (1, 2)
    }
