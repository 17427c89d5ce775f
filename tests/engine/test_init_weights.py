"""Tests for afmlib.engine.init_weights."""

import io

import pytest
import torch
from rich.console import Console

from afmlib.config import ConfigError, load_config
from afmlib.engine import Runner
from afmlib.io.checkpoint import CheckpointError


def same(one, other):
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def start(tiny_config, tmp_path, init_from, *overrides, name="afm_digits"):
    config = tiny_config(name, *overrides) | {"init_from": init_from}
    return Runner(config, tmp_path / "new", device="cpu").objective


def test_all_players_get_the_weights(run, tiny_config, tmp_path):
    old = run(work_dir=tmp_path / "old").objective

    new = start(tiny_config, tmp_path, str(tmp_path / "old"))

    assert same(new.generator, old.generator_ema)
    assert same(new.generator_ema, old.generator_ema)
    assert same(new.discriminator, old.discriminator)
    assert new.num_images == 0
    assert new.gradient_normalization.square_avg == 0


def test_online_weights_or_one_player(run, tiny_config, tmp_path):
    old = run(work_dir=tmp_path / "old").objective
    fresh = Runner(tiny_config(), tmp_path / "fresh", device="cpu").objective

    online = start(tiny_config, tmp_path, {"path": str(tmp_path / "old"), "ema": False})
    one = start(
        tiny_config, tmp_path, {"path": str(tmp_path / "old"), "players": ["discriminator"]}
    )

    assert same(online.generator, old.generator)
    assert same(online.generator_ema, old.generator)
    assert same(one.discriminator, old.discriminator)
    assert same(one.generator, fresh.generator)


def test_another_objective_takes_the_generator(run, tiny_config, tmp_path):
    embed = "objective.generator.use_timestep_src=true"
    old = run(embed, name="flow_matching_digits", work_dir=tmp_path / "old").objective

    new = start(tiny_config, tmp_path, str(tmp_path / "old"), embed)

    assert same(new.generator, old.generator_ema)


def test_init_from_is_not_a_resume(run, tiny_config, tmp_path):
    run(work_dir=tmp_path / "old")
    config = tiny_config() | {"init_from": str(tmp_path / "old")}
    text = io.StringIO()

    for resume in (False, True):
        console = Console(file=text, width=300)
        runner = Runner(config, tmp_path / "new", device="cpu", resume=resume, console=console)
        runner.train()

    assert text.getvalue().count("starting from the weights of") == 1
    assert "generator (EMA)" in text.getvalue()
    assert "nothing to do" in text.getvalue()  # The second went on with the first.


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["objective.generator.hidden_size=32"], "do not fit the generator"),
        (["objective.discriminator.hidden_size=32"], "do not fit the discriminator"),
    ],
)
def test_incompatible_weights_raise(run, tiny_config, tmp_path, overrides, message):
    run(work_dir=tmp_path / "old")

    with pytest.raises(CheckpointError, match=message):
        start(tiny_config, tmp_path, str(tmp_path / "old"), *overrides)


def test_weights_for_other_data_name_the_field(run, tiny_config, tmp_path):
    run(work_dir=tmp_path / "old")

    with pytest.raises(CheckpointError, match="its num_classes is 10, not 1"):
        start(tiny_config, tmp_path, str(tmp_path / "old"), name="afm_gaussians2d")


@pytest.mark.parametrize(
    ("init_from", "message"),
    [
        ({"path": "x", "players": ["critic"]}, "init_from: there is no player 'critic'"),
        ({"pth": "x"}, "init_from: there is no key 'pth'"),
        (7, "init_from: expected keys and values"),
        ({"path": 7}, "init_from"),
    ],
)
def test_mistakes_raise_before_building(init_from, message, tmp_path):
    config = load_config("afm_digits") | {"init_from": init_from}

    with pytest.raises(ConfigError, match=message):
        Runner(config, tmp_path / "new", device="cpu")


def test_missing_run_is_named(tiny_config, tmp_path):
    with pytest.raises(CheckpointError, match="There is no checkpoint in nowhere"):
        start(tiny_config, tmp_path, "nowhere")
