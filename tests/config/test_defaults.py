"""Tests for afmlib.config.defaults."""

import pytest

from afmlib.config import check_config, load_config, with_defaults


@pytest.mark.parametrize("name", ["afm_digits", "afm_deep_digits", "flow_matching_gaussians2d"])
def test_defaults_are_idempotent(name):
    config = load_config(name)
    filled = with_defaults(config)

    assert with_defaults(filled) == filled
    assert filled["seed"] == check_config(config).seed == 0
    assert filled["ema"]["decay"] == check_config(config).ema.decay
    assert filled["optimizers"]["generator"]["eps"] == 1e-8


def test_explicit_defaults_are_equal():
    plain = load_config("afm_digits")
    written = load_config("afm_digits", ["objective.cp_scale=0.01", "seed=0", "ema.warmup=true"])

    assert with_defaults(plain) == with_defaults(written)
    assert with_defaults(plain) != with_defaults(load_config("afm_digits", ["seed=1"]))


def test_presets_and_names():
    filled = with_defaults(load_config("afm_b2", ["objective.loss=HingeLoss"]))

    assert filled["objective"]["generator"]["hidden_size"] == 768
    assert filled["objective"]["loss"] == {"type": "HingeLoss", "margin": 1.0}


def test_unknown_components():
    config = {**load_config("afm_digits"), "objective": {"type": "FromAPlugin", "x": 1}}

    assert with_defaults(config)["objective"] == {"type": "FromAPlugin", "x": 1}
