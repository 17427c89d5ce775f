"""Tests for afmlib.config.compose."""

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afmlib.config import ConfigError, compose, config_names, load_config
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


# --- Whatever a config says -----------------------------------------------------------------------


@pytest.mark.parametrize("bases", ["3", "null", "{a: 1}", "[1]", "[[afm_digits]]", "[null]"])
def test_bases_are_names(bases, tmp_path):
    (tmp_path / "run.yaml").write_text(f"_base_: {bases}")

    with pytest.raises(ConfigError, match=r"_base_ in .* is a name or a list of names, not"):
        load_config(str(tmp_path / "run.yaml"))


@pytest.mark.parametrize(
    "name",
    ["", "/", "..", "x" * 5000, "x\\0", "\\ud800"],
    ids=["empty", "root", "parent", "long", "null", "surrogate"],
)
def test_a_base_that_can_be_no_file_does_not_exist(name, tmp_path):
    (tmp_path / "run.yaml").write_text(f'_base_: "{name}"')

    with pytest.raises(ConfigError, match="which does not exist") as caught:
        load_config(str(tmp_path / "run.yaml"))

    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "name", ["x" * 5000, "x\0", "\ud800", "a\nb"], ids=["long", "null", "surrogate", "lines"]
)
def test_a_name_that_can_be_no_file_is_unknown(name):
    with pytest.raises(ConfigError, match="There is no config"):
        load_config(name)
    with pytest.raises(ConfigError, match="There is no config file"):
        load_config(name + ".yaml")


def test_a_shipped_name_leads_to_no_other_folder(tmp_path):
    with pytest.raises(ConfigError, match="There is no config"):
        load_config("../scales/digits")
    with pytest.raises(ConfigError, match="There is no config"):
        load_config("../methods/afm_digits")


def test_a_file_is_loaded_once_however_many_stand_on_it(tmp_path, monkeypatch):
    reads = []
    read = compose.read
    monkeypatch.setattr(compose, "read", lambda path: reads.append(path) or read(path))
    (tmp_path / "f0.yaml").write_text("seed: 1")
    for n in range(1, 9):
        (tmp_path / f"f{n}.yaml").write_text(f"_base_: [f{n - 1}, f{n - 1}, f{n - 1}]")

    assert load_config(str(tmp_path / "f8.yaml")) == {"seed": 1}
    assert len(reads) == 9


def test_a_tower_of_bases_is_refused(tmp_path):
    (tmp_path / "f0.yaml").write_text("seed: 1")
    for n in range(1, 2000):
        (tmp_path / f"f{n}.yaml").write_text(f"_base_: f{n - 1}")

    with pytest.raises(ConfigError, match="stands on more than 16 bases"):
        load_config(str(tmp_path / "f1999.yaml"))


@pytest.mark.parametrize("junk", [None, 3, "text", [1], {}])
def test_merging_asks_for_nothing_of_what_is_no_mapping(junk):
    method = load_config("afm_digits")

    for base in ({"objective": junk}, {"objective": {"nfe": 1}, "optimizers": junk}):
        assert merge(base, method)["objective"]["type"] == "AdversarialFlow"


@pytest.mark.parametrize("kind", [[1], {"type": "RepeatDepth"}, {}, 3, 0.5])
def test_a_type_that_is_no_name_is_merged_like_any_value(kind):
    merged = merge({"loss": {"type": "HingeLoss", "margin": 1}}, {"loss": {"type": kind}})

    assert merged == {"loss": {"type": kind}}
    assert merge(merged, {"loss": {"type": "HingeLoss"}}) == {"loss": {"type": "HingeLoss"}}


@pytest.mark.parametrize(
    "override",
    ["a." * 40 + "a=1", "a=" + "[" * 40, "a=" + "b" * 300_000],
    ids=["deep key", "deep value", "long value"],
)
def test_an_override_that_is_too_deep_or_too_long_is_refused(override):
    with pytest.raises(ConfigError, match=r"levels|longer than") as caught:
        apply_override({}, override)

    assert len(str(caught.value)) < 500


def test_a_long_value_that_an_override_meets_is_shortened():
    config = {"a": "x" * 10**5, "b": list(range(10**5))}

    for key in config:
        with pytest.raises(ConfigError, match=f"goes below {key}, which is") as caught:
            apply_override(config, f"{key}.c=1")
        assert len(str(caught.value)) < 300
