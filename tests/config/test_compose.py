"""Tests for afmlib.config.compose."""

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afmlib.config import ConfigError, config_names, load_config
from afmlib.config.compose import apply_override, merge

keys = st.sampled_from(["a", "b", "c"])
trees = st.recursive(
    st.integers(), lambda inner: st.dictionaries(keys, inner, max_size=3), max_leaves=8
)
configs = st.dictionaries(keys, trees, max_size=3)


@given(configs, configs)
def test_merging_keeps_every_leaf_of_the_upper_config(base, over):
    merged = merge(base, over)

    for path, value in _leaves(over):
        assert _at(merged, path) == value


@given(configs, configs)
def test_merging_adds_nothing_and_changes_neither(base, over):
    before = copy.deepcopy((base, over))

    merged = merge(base, over)

    assert (base, over) == before
    for path, value in _leaves(merged):
        assert any(_has(config, path, value) for config in (base, over))


@given(configs)
def test_merging_with_nothing_or_itself_changes_nothing(config):
    assert merge(config, {}) == merge({}, config) == merge(config, config) == config


def _leaves(tree, path=()):
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, (*path, key))
        elif not isinstance(value, dict):
            yield (*path, key), value


def _at(tree, path):
    for key in path:
        tree = tree[key]
    return tree


def _has(tree, path, value):
    try:
        return _at(tree, path) == value
    except (KeyError, TypeError):
        return False


def test_a_change_of_type_drops_the_arguments_of_the_old_type():
    base = {"objective": {"type": "A", "loss": {"type": "HingeLoss", "margin": 2.0}}}

    merged = merge(base, {"objective": {"loss": {"type": "WassersteinLoss"}}})

    assert merged["objective"]["loss"] == {"type": "WassersteinLoss"}


def test_the_same_type_keeps_them():
    base = {"objective": {"type": "A", "loss": {"type": "HingeLoss", "margin": 2.0}}}

    merged = merge(base, {"objective": {"loss": {"type": "HingeLoss"}}})

    assert merged["objective"]["loss"] == {"type": "HingeLoss", "margin": 2.0}


def test_a_depth_wrapper_goes_around_the_generator_that_is_there():
    config = load_config("afm_digits")
    generator = config["objective"]["generator"]

    deep = apply_override(config, "objective.generator.type=RepeatDepth")
    deep = apply_override(deep, "objective.generator.repeats=3")
    blocks = apply_override(deep, "objective.generator.type=RepeatBlocks")

    assert deep["objective"]["generator"] == {
        "type": "RepeatDepth",
        "repeats": 3,
        "generator": generator,
    }
    assert blocks["objective"]["generator"] == deep["objective"]["generator"] | {
        "type": "RepeatBlocks"
    }


def test_an_objective_takes_of_a_scale_what_it_has_use_for():
    config = load_config("flow_matching_digits")

    assert "discriminator" not in config["objective"]
    assert "gp_scale" not in config["objective"]
    assert list(config["optimizers"]) == ["generator"]


def test_a_name_is_a_method_on_a_scale():
    config = load_config("gan_gaussians2d")

    assert config["objective"]["type"] == "AdversarialFlow"
    assert config["objective"]["ot_scale"] == 0
    assert config["data"] == {"type": "EightGaussians"}


def test_an_exact_file_comes_before_a_composition():
    assert load_config("afm_xl2_deep112")["objective"]["generator"]["repeats"] == 4


def test_every_listed_name_loads():
    names = config_names()

    assert {"afm_digits", "gan_digits", "flow_matching_digits", "afm_xl2_deep56"} <= set(names)
    for name in names:
        assert load_config(name)["num_images"] >= 1


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'afm_digits'"):
        load_config("afm_digit")


def test_bases_are_laid_over_one_another_in_their_order(tmp_path):
    (tmp_path / "one.yaml").write_text("seed: 1\nnum_images: 1")
    (tmp_path / "two.yaml").write_text("seed: 2")
    (tmp_path / "run.yaml").write_text("_base_: [scales/digits, one, two.yaml]\nkeep_last: 5")

    config = load_config(str(tmp_path / "run.yaml"))

    assert (config["seed"], config["num_images"], config["keep_last"]) == (2, 1, 5)
    assert config["data"] == {"type": "Digits"}


def test_a_base_that_is_missing_or_circular_is_refused(tmp_path):
    (tmp_path / "circle.yaml").write_text("_base_: circle")
    (tmp_path / "lost.yaml").write_text("_base_: nowhere")

    with pytest.raises(ConfigError, match="base of itself"):
        load_config(str(tmp_path / "circle.yaml"))
    with pytest.raises(ConfigError, match="'nowhere', which does not exist"):
        load_config(str(tmp_path / "lost.yaml"))


def test_overrides_replace_add_and_reach_into_mappings():
    config = load_config(
        "afm_digits",
        [
            "objective.ot_scale.end=0.1",
            "optimizers.generator.lr=1e-4",
            "log.tensorboard=true",
            "evaluation.metrics=[Diversity]",
        ],
    )

    assert config["objective"]["ot_scale"] == {"type": "CosineSchedule", "start": 0.2, "end": 0.1}
    assert config["optimizers"]["generator"]["lr"] == 1e-4
    assert config["log"] == {"tensorboard": True}
    assert config["evaluation"]["metrics"] == ["Diversity"]


def test_plugins_of_a_file_lie_beside_it_and_are_there_when_it_is_merged(tmp_path, monkeypatch):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "objective_of_mine.py").write_text(
        "from afmlib.objectives.flow_matching import FlowMatching\n"
        "from afmlib.registry import OBJECTIVES\n"
        "OBJECTIVES.register_module(name='ObjectiveOfMine', module=FlowMatching)\n"
    )
    (folder / "run.yaml").write_text(
        "_base_: scales/digits\nplugins: [objective_of_mine.py]\n"
        "objective: {type: ObjectiveOfMine}\n"
    )
    monkeypatch.chdir(tmp_path)

    config = load_config("mine/run.yaml")

    assert config["plugins"] == [str(folder / "objective_of_mine.py")]
    assert set(config["objective"]) == {"type", "generator"}


def test_an_override_reaches_below_nothing():
    config = load_config(
        "afm_digits", ["evaluation.extractor=null", "evaluation.extractor.type=DigitsExtractor"]
    )

    assert config["evaluation"]["extractor"] == {"type": "DigitsExtractor"}


@pytest.mark.parametrize("override", ["seed", "=3", "a..b=1", ".seed=1", ""])
def test_an_override_that_is_not_key_and_value_is_refused(override):
    with pytest.raises(ConfigError, match="key=value"):
        load_config("afm_digits", [override])


def test_an_override_below_a_number_is_refused():
    with pytest.raises(ConfigError, match="goes below seed"):
        load_config("afm_digits", ["seed=1", "seed.deep.er=1"])
