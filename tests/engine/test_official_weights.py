"""Tests for afmlib.engine.official_weights."""

import official_layout as layout
import pytest
import torch

from afmlib.config import load_config
from afmlib.engine import Runner
from afmlib.io.checkpoint import CheckpointError

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
