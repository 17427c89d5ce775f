"""Tests for afmlib.config.compose."""

import copy
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afmlib.config import ConfigError, check_config, compose, config_names, load_config
from afmlib.config.compose import apply_override, merge
from afmlib.registry import OBJECTIVES

keys = st.sampled_from(["a", "b", "c"])
trees = st.recursive(
    st.integers(), lambda inner: st.dictionaries(keys, inner, max_size=3), max_leaves=8
)
configs = st.dictionaries(keys, trees, max_size=3)


@given(configs, configs)
def test_merging_keeps_the_upper_leaves(base, over):
    merged = merge(base, over)

    for path, value in _leaves(over):
        assert _at(merged, path) == value


@given(configs, configs)
def test_merging_adds_nothing(base, over):
    before = copy.deepcopy((base, over))

    merged = merge(base, over)

    assert (base, over) == before
    for path, value in _leaves(merged):
        assert any(_has(config, path, value) for config in (base, over))


@given(configs)
def test_merging_is_idempotent(config):
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


def test_new_type_drops_other_arguments():
    base = {"objective": {"type": "A", "loss": {"type": "HingeLoss", "margin": 2.0}}}

    merged = merge(base, {"objective": {"loss": {"type": "WassersteinLoss"}}})

    assert merged["objective"]["loss"] == {"type": "WassersteinLoss"}


COSINE = {"type": "CosineSchedule", "start": 0.2, "end": 0.08}


@pytest.mark.parametrize(
    ("override", "key", "expected"),
    [
        ("objective.ot_scale.type=LinearSchedule", "ot_scale", COSINE | {"type": "LinearSchedule"}),
        ("objective.ot_scale.type=ConstantSchedule", "ot_scale", {"type": "ConstantSchedule"}),
        (
            "objective.generator.type=MLPGenerator",
            "generator",
            {"type": "MLPGenerator", "hidden_size": 64, "depth": 2},
        ),
        ("objective.generator.type=dit_s_4", "generator", {"type": "dit_s_4"}),
        ("objective.generator.type=NoSuchGenerator", "generator", {"type": "NoSuchGenerator"}),
    ],
)
def test_new_type_keeps_what_it_takes(override, key, expected):
    assert load_config("afm_digits", [override])["objective"][key] == expected


def test_new_type_keeps_preset_sizes():
    config = load_config("afm_b2", ["objective.generator.type=DiTGenerator"])

    generator = config["objective"]["generator"]
    assert (generator["type"], generator["hidden_size"]) == ("DiTGenerator", 768)


def test_new_type_of_other_components():
    config = load_config(
        "afm_digits",
        [
            "data={type: ImageFolder, path: x, size: 8, channels: 1}",
            "data.type=ImageArchive",
            "evaluation.extractor={type: TimmExtractor, model: x, weights: y}",
            "evaluation.extractor.type=InceptionExtractor",
            "optimizers.generator.lr={type: CosineSchedule, start: 1, end: 0}",
            "optimizers.generator.lr.type=LinearSchedule",
            "optimizers.discriminator.type=SGD",
        ],
    )

    assert config["data"]["path"] == "x"
    assert "size" not in config["data"]
    assert config["evaluation"]["extractor"] == {"type": "InceptionExtractor"}
    assert config["optimizers"] == {
        "generator": {"lr": {"type": "LinearSchedule", "start": 1, "end": 0}},
        "discriminator": {"lr": 2e-3, "type": "SGD"},
    }


def test_new_objective_keeps_networks_and_players():
    config = load_config("afm_digits", ["objective.type=FlowMatching"])

    assert config["objective"]["generator"]["hidden_size"] == 64
    assert "discriminator" not in config["objective"]
    assert list(config["optimizers"]) == ["generator"]


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("afm_digits", ["objective.nfee=4", "objective.type=FlowMatching"], "'nfee'"),
        (
            "afm_digits",
            ["objective.generator.hiden_size=4", "objective.generator.type=MLPGenerator"],
            "'hiden_size'",
        ),
        (
            "afm_deep_digits",
            ["objective.generator.repeets=4", "objective.generator.type=DiTGenerator"],
            "'repeets'",
        ),
        ("afm_digits", ["optimizers.generatr.lr=1", "objective.type=FlowMatching"], "'generatr'"),
        ("afm_digits", ["updates.generatr=2", "objective.type=FlowMatching"], "'generatr'"),
        ("afm_digits", ["data.pth=x", "data.type=ImageFolder", "data.path=x"], "'pth'"),
    ],
)
def test_new_type_keeps_misspelled_keys_for_the_check(name, overrides, message):
    with pytest.raises(ConfigError, match=message):
        check_config(load_config(name, overrides))


def test_unwrapping_keeps_the_generator():
    config = load_config("afm_deep_digits")
    inner = config["objective"]["generator"]["generator"]

    config = apply_override(config, "objective.generator.type=DiTGenerator")

    assert config["objective"]["generator"] == inner


PLUGIN = """
from afmlib.objectives.flow_matching import FlowMatching
from afmlib.registry import OBJECTIVES
OBJECTIVES.register_module(name={name!r}, module=FlowMatching)
"""


@pytest.fixture
def plugin(tmp_path):
    """Writes a plugin file with a new objective; returns its path and the name."""
    name = f"Mine{uuid.uuid4().hex}"
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN.format(name=name))
    yield str(path), name
    OBJECTIVES._module_dict.pop(name, None)
    OBJECTIVES._origins.pop(name, None)


@pytest.mark.parametrize("way", ["argument", "override", "later override"])
def test_plugin_objective_by_override(plugin, way):
    path, name = plugin
    overrides, loaded = [f"objective.type={name}"], []
    if way == "argument":
        loaded = [path]
    else:
        overrides.insert(way == "later override", f"plugins=[{path}]")

    config = load_config("flow_matching_digits", overrides, loaded)

    before = load_config("flow_matching_digits")["objective"]
    assert config["objective"] == before | {"type": name}
    assert config["plugins"] == [path]
    assert check_config(config).objective["generator"]["hidden_size"] == 64


def test_plugin_objective_in_a_file(plugin, tmp_path):
    _, name = plugin
    (tmp_path / "run.yaml").write_text(
        "_base_: [scales/digits, methods/flow_matching]\nplugins: [mine.py]\n"
        f"objective: {{type: {name}, generator: {{use_timestep_src: true}}}}\n"
    )

    config = load_config(str(tmp_path / "run.yaml"))

    assert config["objective"]["generator"] == {
        "type": "DiTGenerator",
        "patch_size": 2,
        "hidden_size": 64,
        "depth": 2,
        "num_heads": 4,
        "use_timestep_src": True,
    }
    assert list(config["optimizers"]) == ["generator"]


def test_override_below_a_name():
    config = load_config("afm_digits", ["objective.loss=HingeLoss", "objective.loss.margin=0.5"])

    assert config["objective"]["loss"] == {"type": "HingeLoss", "margin": 0.5}


def test_keys_below_a_name_in_a_file(tmp_path):
    (tmp_path / "base.yaml").write_text(
        "_base_: afm_digits\nobjective: {loss: HingeLoss}\nevaluation: {extractor: TimmExtractor}"
    )
    (tmp_path / "run.yaml").write_text(
        "_base_: base\nobjective: {loss: {margin: 0.5}}\nevaluation: {extractor: {path: x}}"
    )

    config = load_config(str(tmp_path / "run.yaml"))

    assert config["objective"]["loss"] == {"type": "HingeLoss", "margin": 0.5}
    assert config["evaluation"]["extractor"] == {"type": "TimmExtractor", "path": "x"}


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("faces_afm.yaml", "afm_faces"),
        ("afm_faces.yaml", "afm_faces"),
        ("afm_faces.yml", "afm_facse"),
    ],
)
def test_similar_file_name_is_suggested(file, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / file).write_text("seed: 1")

    with pytest.raises(ConfigError, match=rf"Did you mean \./{file}\?"):
        load_config(name)


def test_same_type_keeps_its_arguments():
    base = {"objective": {"type": "A", "loss": {"type": "HingeLoss", "margin": 2.0}}}

    merged = merge(base, {"objective": {"loss": {"type": "HingeLoss"}}})

    assert merged["objective"]["loss"] == {"type": "HingeLoss", "margin": 2.0}


def test_depth_wrapper_wraps_the_generator():
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


def test_objective_drops_unused_networks():
    config = load_config("flow_matching_digits")

    assert "discriminator" not in config["objective"]
    assert "gp_scale" not in config["objective"]
    assert list(config["optimizers"]) == ["generator"]


def test_name_is_method_and_scale():
    config = load_config("gan_gaussians2d")

    assert config["objective"]["type"] == "AdversarialFlow"
    assert config["objective"]["ot_scale"] == 0
    assert config["data"] == {"type": "EightGaussians"}


def test_exact_file_comes_first():
    assert load_config("afm_xl2_deep112")["objective"]["generator"]["repeats"] == 4


def test_every_listed_name_loads():
    names = config_names()

    assert {"afm_digits", "gan_digits", "flow_matching_digits", "afm_xl2_deep56"} <= set(names)
    for name in names:
        assert load_config(name)["num_images"] >= 1


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'afm_digits'"):
        load_config("afm_digit")


def test_bases_are_merged_in_order(tmp_path):
    (tmp_path / "one.yaml").write_text("seed: 1\nnum_images: 1")
    (tmp_path / "two.yaml").write_text("seed: 2")
    (tmp_path / "run.yaml").write_text("_base_: [scales/digits, one, two.yaml]\nkeep_last: 5")

    config = load_config(str(tmp_path / "run.yaml"))

    assert (config["seed"], config["num_images"], config["keep_last"]) == (2, 1, 5)
    assert config["data"] == {"type": "Digits"}


def test_file_extends_the_shipped_config_of_its_name(tmp_path):
    (tmp_path / "scm_digits.yaml").write_text("_base_: scm_digits\nseed: 7")

    config = load_config(str(tmp_path / "scm_digits.yaml"))

    assert config == {**load_config("scm_digits"), "seed": 7}


def test_missing_or_circular_base(tmp_path):
    (tmp_path / "circle.yaml").write_text("_base_: circle")
    (tmp_path / "lost.yaml").write_text("_base_: nowhere")

    with pytest.raises(ConfigError, match="base of itself"):
        load_config(str(tmp_path / "circle.yaml"))
    with pytest.raises(ConfigError, match="'nowhere', which does not exist"):
        load_config(str(tmp_path / "lost.yaml"))


def test_overrides_replace_and_add_keys():
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


def test_plugins_are_relative_to_their_file(tmp_path, monkeypatch):
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


def test_override_below_null():
    config = load_config(
        "afm_digits", ["evaluation.extractor=null", "evaluation.extractor.type=DigitsExtractor"]
    )

    assert config["evaluation"]["extractor"] == {"type": "DigitsExtractor"}


@pytest.mark.parametrize("override", ["seed", "=3", "a..b=1", ".seed=1", ""])
def test_override_without_key_and_value(override):
    with pytest.raises(ConfigError, match="key=value"):
        load_config("afm_digits", [override])


def test_override_below_a_number():
    with pytest.raises(ConfigError, match="needs keys below seed, which is 1"):
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
def test_base_with_an_impossible_name(name, tmp_path):
    (tmp_path / "run.yaml").write_text(f'_base_: "{name}"')

    with pytest.raises(ConfigError, match="which does not exist") as caught:
        load_config(str(tmp_path / "run.yaml"))

    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "name", ["x" * 5000, "x\0", "\ud800", "a\nb"], ids=["long", "null", "surrogate", "lines"]
)
def test_impossible_names(name):
    with pytest.raises(ConfigError, match="There is no config"):
        load_config(name)
    with pytest.raises(ConfigError, match="There is no config file"):
        load_config(name + ".yaml")


def test_shipped_names_stay_in_their_folder(tmp_path):
    with pytest.raises(ConfigError, match="There is no config"):
        load_config("../scales/digits")
    with pytest.raises(ConfigError, match="There is no config"):
        load_config("../methods/afm_digits")


def test_each_base_is_read_once(tmp_path, monkeypatch):
    reads = []
    read = compose.read
    monkeypatch.setattr(compose, "read", lambda path: reads.append(path) or read(path))
    (tmp_path / "f0.yaml").write_text("seed: 1")
    for n in range(1, 9):
        (tmp_path / f"f{n}.yaml").write_text(f"_base_: [f{n - 1}, f{n - 1}, f{n - 1}]")

    assert load_config(str(tmp_path / "f8.yaml")) == {"seed": 1}
    assert len(reads) == 9


def test_too_many_bases(tmp_path):
    (tmp_path / "f0.yaml").write_text("seed: 1")
    for n in range(1, 2000):
        (tmp_path / f"f{n}.yaml").write_text(f"_base_: f{n - 1}")

    with pytest.raises(ConfigError, match="has more than 16 nested bases"):
        load_config(str(tmp_path / "f1999.yaml"))


@pytest.mark.parametrize("junk", [None, 3, "text", [1], {}])
def test_merging_over_junk(junk):
    method = load_config("afm_digits")

    for base in ({"objective": junk}, {"objective": {"nfe": 1}, "optimizers": junk}):
        assert merge(base, method)["objective"]["type"] == "AdversarialFlow"


@pytest.mark.parametrize("kind", [[1], {"type": "RepeatDepth"}, {}, 3, 0.5])
def test_type_that_is_not_a_name(kind):
    merged = merge({"loss": {"type": "HingeLoss", "margin": 1}}, {"loss": {"type": kind}})

    assert merged == {"loss": {"type": kind}}
    assert merge(merged, {"loss": {"type": "HingeLoss"}}) == {"loss": {"type": "HingeLoss"}}


@pytest.mark.parametrize(
    "override",
    ["a." * 40 + "a=1", "a=" + "[" * 40, "a=" + "b" * 300_000],
    ids=["deep key", "deep value", "long value"],
)
def test_override_too_deep_or_long(override):
    with pytest.raises(ConfigError, match=r"levels|longer than") as caught:
        apply_override({}, override)

    assert len(str(caught.value)) < 500


def test_long_values_are_shortened():
    config = {"a": "x" * 10**5, "b": list(range(10**5))}

    for key in config:
        with pytest.raises(ConfigError, match=f"needs keys below {key}, which is") as caught:
            apply_override(config, f"{key}.c=1")
        assert len(str(caught.value)) < 300
