"""Tests for afmlib.config.check."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from afmlib.config import ConfigError, check_config, config_names, load_config
from afmlib.config.data_arguments import data_arguments
from afmlib.registry import ComponentError


# Those of a plugin are checked where it is installed: see test_plugin_r3gan.py.
@pytest.mark.parametrize("name", [name for name in config_names() if "r3gan" not in name])
def test_every_shipped_config_passes(name):
    run = check_config(load_config(name))

    assert set(run.optimizers) <= {"classifier", "discriminator", "generator"}


WRONG = [
    ("sed=1", "there is no key 'sed'.*'seed'"),
    ("objective.ot_scael=0.1", "'ot_scael'.*'ot_scale'"),
    ("objective.type=AdversarialFow", "'AdversarialFow'.*'AdversarialFlow'"),
    ("objective.generator.type=DitGenerator", "objective.generator.*'DiTGenerator'"),
    ("objective.generator.hidden_size=wide", "hidden_size is int, not str"),
    ("objective.generator.attention=fast", "'fast'"),
    ("objective.loss=HingLoss", "objective.loss.*'HingeLoss'"),
    ("objective.loss={type: HingeLoss, margn: 1}", "objective.loss.*'margn'.*'margin'"),
    ("objective.ot_scale={type: LinearSchedule, start: 1}", "needs the argument 'end'"),
    ("objective.nfe=two", "nfe is int or"),
    ("objective.nfe=true", "nfe is int or"),
    ("data.type=Digit", "data.*'Digits'"),
    ("data.type=os.system", "There is no 'os.system'"),
    ("num_images=0", "num_images must be at least 1"),
    ("num_images=many", "num_images is int"),
    ("global_batch=-3", "global_batch must be at least 1"),
    ("precision=float8", "precision"),
    ("optimizers.generator.lr=-1", "optimizers.generator.*lr must be positive"),
    ("optimizers.generator.type=Lion", "type is one of AdamW"),
    ("optimizers.generator.betas=[0.9]", "betas are two numbers"),
    ("optimizers.genrator.lr=1", "there is no player 'genrator'.*'generator'"),
    ("optimizers.generator=3", "optimizers.generator: expected keys and values"),
    ("optimizers=3", "optimizers: expected one for each player"),
    ("ema.decay=1", "decay must be in"),
    ("ema.decy=0.9", "ema: there is no key 'decy'.*'decay'"),
    ("evaluation.metrics=[FrechetDist]", r"evaluation.metrics\[0\].*'FrechetDistance'"),
    ("evaluation.extractor=Inceptn", "evaluation.extractor"),
    ("evaluation.num_samples=0", "num_samples must be at least 1"),
    ("log.every=0", "log: every must be at least 1"),
    ("plugins=[nowhere.py]", "There is no plugin file"),
    ("evaluation.metrics=FrechetDistance", "metrics is Sequence"),
    ("data=Digits", "data is keys and values"),
]


@pytest.mark.parametrize(("override", "message"), WRONG)
def test_what_is_wrong_is_named_before_anything_is_built(override, message, monkeypatch):
    monkeypatch.setattr("torch.nn.Module.__init__", _refuse)

    with pytest.raises((ConfigError, ComponentError), match=message):
        check_config(load_config("afm_digits", [override]))


def _refuse(self, *args, **kwargs):
    raise AssertionError("A network was built.")


def test_a_generator_that_cannot_be_repeated_is_named():
    config = load_config("afm_gaussians1d", ["objective.generator.type=RepeatDepth"])
    config["objective"]["generator"]["repeats"] = 2

    with pytest.raises(ConfigError, match="RepeatDepth needs a RepeatableGenerator, which MLPG"):
        check_config(config)


def test_points_have_no_size():
    points = {
        type: data_arguments({"type": type}) for type in ("FourGaussians", "OverlappingGaussians")
    }
    images = {type: data_arguments({"type": type}) for type in ("Digits", "LatentFolder")}

    assert set(points.values()) == {("in_channels", "num_classes")}
    assert set(images.values()) == {("input_size", "in_channels", "num_classes")}


@pytest.mark.parametrize("key", ["objective", "data", "optimizers", "global_batch", "num_images"])
def test_a_missing_key_is_named(key):
    config = load_config("afm_digits")
    del config[key]

    with pytest.raises(ConfigError, match=key):
        check_config(config)


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=4,
)


@settings(max_examples=200)
@given(st.data())
def test_a_mutated_config_passes_or_is_refused_by_one_documented_error(data):
    config = load_config("afm_digits")
    node = config
    for _ in range(data.draw(st.integers(0, 3))):
        inner = [value for value in node.values() if isinstance(value, dict) and value]
        if not inner:
            break
        node = data.draw(st.sampled_from(inner))
    node[data.draw(st.sampled_from(sorted(node)) | st.text(max_size=5))] = data.draw(junk)

    with contextlib.suppress(ConfigError, ComponentError):
        check_config(config)
