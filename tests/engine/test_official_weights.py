"""Tests for afmlib.engine.official_weights."""

import argparse

import official_layout as layout
import pytest
import torch

from afmlib.config import load_config
from afmlib.engine import Runner
from afmlib.io.checkpoint import CheckpointError
from afmlib.io.official_files import read_state_dict

SIZES = dict(depth=2, hidden=16, classes=10, channels=1, tokens=16)
"""Those of the networks of digits that tests train."""


@pytest.fixture
def start(tiny_config, tmp_path):
    def start(shapes, repeats=None, **init):
        torch.save(layout.random_state(shapes), tmp_path / "file.pth")
        config = tiny_config()
        objective = config["objective"]
        for player in ("generator", "discriminator"):
            objective[player] |= dict(hidden_size=16, depth=2)
        if repeats is not None:
            deep = dict(type="RepeatDepth", repeats=repeats, generator=objective["generator"])
            objective["generator"] = deep
        config["init_from"] = dict(path=str(tmp_path / "file.pth")) | init
        return Runner(config, tmp_path / "new", device="cpu").objective

    return start


def holds(network, shapes):
    state = layout.random_state(shapes)
    own = network.state_dict()
    return own.keys() == state.keys() and all(torch.equal(own[key], state[key]) for key in own)


def test_generator_and_ema_start_from_file(start):
    shapes = layout.generator(**SIZES)

    objective = start(shapes)

    assert holds(objective.generator, shapes)
    assert holds(objective.generator_ema, shapes)


def test_deep_generator_uses_official_names(start):
    shapes = layout.generator(**SIZES, times=("t_embedder",))

    objective = start(shapes, repeats=2)

    assert holds(objective.generator.generator, shapes)
    assert holds(objective.generator_ema.generator, shapes)


def test_a_discriminator_starts_alone(start):
    shapes = layout.discriminator(**SIZES)

    objective = start(shapes)

    assert holds(objective.discriminator, shapes)
    assert objective.generator.final_layer.linear.weight.abs().sum() == 0  # As it begins.


def test_classifier_and_ema_start_from_file(tmp_path):
    shapes = layout.classifier(**SIZES)
    torch.save(layout.random_state(shapes), tmp_path / "file.pth")
    sizes = ["objective.classifier.hidden_size=16", "objective.classifier.depth=2"]
    config = load_config("classifier_digits", [*sizes, f"init_from={tmp_path}/file.pth"])

    objective = Runner(config, tmp_path / "new", device="cpu").objective

    assert holds(objective.classifier, shapes)
    assert holds(objective.ema, shapes)


@pytest.mark.parametrize(
    ("shapes", "init", "message"),
    [
        (layout.generator(**SIZES | dict(depth=3)), {}, r"blocks\.2\.\S+ is unexpected"),
        (layout.generator(**SIZES | dict(depth=1)), {}, r"blocks\.1\.\S+ is missing"),
        (layout.generator(**SIZES | dict(classes=9)), {}, "num_classes is 9, not 10"),
        (layout.generator(**SIZES | dict(channels=4)), {}, "latent_shape is .4, 8, 8., not"),
        (
            layout.classifier(**SIZES),
            {},
            "holds a classifier; this run needs weights",
        ),
        (layout.generator(**SIZES), dict(players=["discriminator"]), "needs weights of: discrim"),
    ],
)
def test_incompatible_field_is_named(shapes, init, message, start):
    with pytest.raises(CheckpointError, match=message):
        start(shapes, **init)


# --- Weights of DiT, SiT and REPA -----------------------------------------------------------------

FLOW = layout.flow_generator(depth=2, hidden=16, classes=10, channels=1, tokens=16)


@pytest.fixture
def start_flow(tiny_config, tmp_path):
    """Starts a run from the file of a flow model, written as a training program does."""

    def start(name, file="SiT-B-2.pt", shapes=FLOW, players=None, **sizes):
        states = dict(model=layout.random_state(shapes, 1), ema=layout.random_state(shapes, 2))
        rest = dict(opt={"state": {}}, args=argparse.Namespace(lr=1e-4), steps=7)
        torch.save(states | rest, tmp_path / file)
        config = tiny_config(name)
        config["objective"]["generator"] |= dict(hidden_size=16, depth=2) | sizes
        if "discriminator" in config["objective"]:
            config["objective"]["discriminator"] |= dict(hidden_size=16, depth=2)
        config["init_from"] = dict(path=str(tmp_path / file), players=players)
        runner = Runner(config, tmp_path / "new", device="cpu")
        return runner.objective, runner._initialized, states

    return start


def test_meanflow_starts_from_sit(start_flow):
    objective, said, states = start_flow("meanflow_digits")

    assert "SiT; not used: the variance, the null class; new: t_tgt_embedder, at zero" in said
    assert torch.equal(
        objective.generator_ema.blocks[1].attn.qkv.weight, states["ema"]["blocks.1.attn.qkv.weight"]
    )


def test_both_players_start_from_one_file(start_flow):
    objective, said, states = start_flow(
        "afm_digits",
        players=["generator", "discriminator"],
        use_timestep_src=True,
        time_scale=1.0,
    )

    assert "discriminator (SiT; not used:" in said
    assert "SamplePrediction reads it otherwise, so it is only a start" in said
    weight = states["ema"]["blocks.0.mlp.fc1.weight"]
    for player in (objective.generator, objective.discriminator):
        assert torch.equal(player.blocks[0].mlp.fc1.weight, weight)


def test_dit_is_only_a_start(start_flow):
    _, said, _ = start_flow("flow_matching_digits", file="DiT-XL-2-256x256.pt", time_scale=1000.0)

    assert "generator (DiT; " in said
    assert "it predicts noise, so it is only a start" in said


def test_misfit_of_a_flow_model_is_one_message(start_flow):
    with pytest.raises(CheckpointError, match=r"\(SiT\) does not fit .* set its use_timestep_src"):
        start_flow("afm_digits")


def test_pickled_code_beside_the_weights_is_refused(start_flow, tmp_path, monkeypatch):
    class Evil:
        def __reduce__(self):
            return (print, ("ran",))

    torch.save(dict(ema=layout.random_state(FLOW), args=Evil()), tmp_path / "SiT.pt")

    with pytest.raises(CheckpointError, match="its pickle asks for print"):
        read_state_dict(str(tmp_path / "SiT.pt"))
