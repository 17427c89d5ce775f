"""Tests for afmlib.config.check."""

import contextlib
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from afmlib.config import (
    ConfigError,
    check_config,
    check_evaluation,
    check_protocol,
    config_names,
    load_config,
    with_defaults,
)
from afmlib.config.data_arguments import data_arguments
from afmlib.config.domains import CEILINGS, check_ceilings
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
    ("objective.generator.hidden_size=wide", "hidden_size must be a whole number, got 'wide'"),
    ("objective.generator.attention=fast", "'fast'"),
    ("objective.loss=HingLoss", "objective.loss.*'HingeLoss'"),
    ("objective.loss={type: HingeLoss, margn: 1}", "objective.loss.*'margn'.*'margin'"),
    ("objective.ot_scale={type: ConstantSchedule}", "needs the argument 'value'"),
    ("objective.nfe=two", "nfe must be a whole number or 'any', got"),
    ("objective.nfe=true", "nfe must be a whole number or 'any', got"),
    ("data.type=Digit", "data.*'Digits'"),
    ("data.type=os.system", "There is no 'os.system'"),
    ("num_images=0", "num_images must be at least 1"),
    ("num_images=many", "^num_images must be a whole number, got 'many'"),
    ("num_images=1000.5", "^num_images must be a whole number, got 1000.5"),
    ("global_batch=-3", "global_batch must be at least 1"),
    ("precision=float8", "precision"),
    ("optimizers.generator.lr=-1", "optimizers.generator.*lr must be positive"),
    ("optimizers.generator.type=Lion", "type must be one of AdamW"),
    ("optimizers.generator.betas=[0.9]", "betas must be two numbers"),
    ("optimizers.genrator.lr=1", "there is no player 'genrator'.*'generator'"),
    ("optimizers.generator=3", "optimizers.generator: expected keys and values"),
    ("optimizers.discriminator=null", "optimizers.discriminator: expected keys and values"),
    ("updates.discriminator=0", r"updates\.discriminator must be at least 1, got 0"),
    ("updates.discriminator=1.5", "updates must be keys with whole numbers"),
    ("updates.discriminater=5", "updates: there is no player 'discriminater'.*'discriminator'"),
    ("updates=5", "updates must be keys with whole numbers, got 5"),
    ("evaluation.metrics=[FID]", r"FID.*\[FrechetDistance\] and .*extractor to InceptionExtractor"),
    ("evaluation.metrics=[KID]", r"\[KernelDistance\] and .*InceptionExtractor"),
    ("evaluation.metrics=[IS]", r"\[InceptionScore\] and .*InceptionExtractor"),
    ("evaluation.metrics=[sFID]", r"\[SpatialFrechetDistance\] and .*InceptionExtractor"),
    ("data={type: ImageFolder, path: x, size: 8, channels: 4}", "channels must be 1 or 3, got 4"),
    ("optimizers=3", "optimizers: expected one for each player"),
    ("ema.decay=1", "decay must be in"),
    ("ema.decays=[0.9, 1.0]", "decay must be in"),
    ("ema.decays=[0.9, 0.9]", "decays must differ from one another"),
    ("ema.decy=0.9", "ema: there is no key 'decy'.*'decay'"),
    ("evaluation.metrics=[FrechetDist]", r"evaluation.metrics\[0\].*'FrechetDistance'"),
    ("evaluation.extractor=Inceptn", "evaluation.extractor"),
    ("evaluation.num_samples=0", "num_samples must be at least 1"),
    ("log.every=0", "log: every must be at least 1"),
    ("plugins=[nowhere.py]", "There is no plugin file"),
    ("evaluation.metrics=FrechetDistance", "metrics must be a list of names or keys and values"),
    ("data=Digits", "data must be keys and values, got 'Digits'"),
]


@pytest.mark.parametrize(("override", "message"), WRONG)
def test_mistakes_are_named(override, message, monkeypatch):
    monkeypatch.setattr("torch.nn.Module.__init__", _refuse)

    with pytest.raises((ConfigError, ComponentError), match=message):
        check_config(load_config("afm_digits", [override]))


def _refuse(self, *args, **kwargs):
    raise AssertionError("A network was built.")


def test_generator_without_blocks_is_named():
    config = load_config("afm_gaussians1d", ["objective.generator.type=RepeatDepth"])
    config["objective"]["generator"]["repeats"] = 2

    with pytest.raises(
        ConfigError, match="RepeatDepth needs a RepeatableGenerator, and MLPGenerator is not one"
    ):
        check_config(config)


def test_points_have_no_size():
    points = {
        type: data_arguments({"type": type}) for type in ("FourGaussians", "OverlappingGaussians")
    }
    images = {type: data_arguments({"type": type}) for type in ("Digits", "LatentFolder")}

    assert set(points.values()) == {("in_channels", "num_classes")}
    assert set(images.values()) == {("input_size", "in_channels", "num_classes")}


@pytest.mark.parametrize("key", ["objective", "data", "optimizers", "global_batch", "num_images"])
def test_missing_key_is_named(key):
    config = load_config("afm_digits")
    del config[key]

    with pytest.raises(ConfigError, match=key):
        check_config(config)


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=4,
)


@settings(max_examples=100)
@given(st.data())
def test_mutated_configs_raise_documented_errors(data):
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


def test_whole_floats_are_whole_numbers():
    run = check_config(load_config("afm_digits", ["num_images=1e6", "evaluation.nfe=1.0"]))

    assert repr((run.num_images, run.evaluation.nfe)) == "(1000000, 1)"


def test_updates_of_players():
    assert check_config(load_config("afm_digits")).updates == {}

    run = check_config(load_config("afm_digits", ["updates.discriminator=5.0"]))

    assert run.updates == {"discriminator": 5}
    assert with_defaults(load_config("afm_digits"))["updates"] == {}


ENORMOUS = [
    ("num_threads", 100_000, 1024),
    ("num_workers", 100_000, 256),
    ("objective.generator.depth", 10**9, 1000),
    ("objective.discriminator.depth", 1001, 1000),
    ("objective.generator.num_heads", 10**9, 1000),
    ("objective.nfe", 10**9, 10_000),
    ("evaluation.nfe", 10**12, 10_000),
    ("evaluation.num_samples", 1e12, 10**7),
    ("log.grid_rows", 10**9, 1000),
    ("global_batch", 10**12, 10**7),
    ("updates.discriminator", 10**9, 1000),
]


@pytest.mark.parametrize(("key", "value", "ceiling"), ENORMOUS)
def test_counts_have_ceilings(key, value, ceiling, monkeypatch):
    monkeypatch.setattr("torch.nn.Module.__init__", _refuse)
    config = load_config("afm_digits", [f"{key}={value}"])
    shown = re.escape(str(value))

    with pytest.raises(
        ConfigError, match=rf"^{re.escape(key)} must be at most {ceiling}, got {shown}"
    ):
        check_config(config)


def test_ceilings_of_nested_specs():
    wrapped = {"type": "RepeatDepth", "repeats": 10**9, "generator": "DiTGenerator"}
    config = load_config("afm_digits")
    config["objective"] = {**config["objective"], "generator": wrapped}

    with pytest.raises(ConfigError, match=r"^objective\.generator\.repeats must be at most 1000"):
        check_config(config)
    with pytest.raises(ConfigError, match=r"^data\.num_samples must be at most 10000000"):
        check_evaluation({"data": {"type": "FourGaussians", "num_samples": 10**12}})
    with pytest.raises(ConfigError, match=r"^evaluation\.num_samples must be at most"):
        check_protocol({"num_samples": 10**12})


@pytest.mark.parametrize(("name", "ceiling"), CEILINGS.items())
def test_ceiling_itself_is_allowed(name, ceiling):
    check_ceilings({name: ceiling})
    with pytest.raises(ConfigError, match=f"^{name} must be at most {ceiling}"):
        check_ceilings({name: ceiling + 1})
