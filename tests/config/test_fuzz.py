"""Every config passes or raises one documented error, and none runs code."""

import contextlib
import copy
import functools
import re
import sys
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from afmlib.config import (
    ConfigError,
    check_config,
    check_evaluation,
    config_names,
    dump,
    load_config,
)
from afmlib.config.compose import SHIPPED, apply_override
from afmlib.config.yaml_files import parse
from afmlib.registry import PluginError

FEW_AND_MANY = pytest.mark.parametrize(
    "examples", [100, pytest.param(2000, marks=pytest.mark.slow)]
)
PATHS = ["os.system", "torch.load", "builtins:eval", "bomb", "bomb.Bomb", "bomb:Bomb", "../bomb.py"]


@pytest.fixture(autouse=True)
def _nothing_runs(tmp_path_factory, monkeypatch):
    """Writes a module that no config may import, and records calls of dotted paths."""
    folder = tmp_path_factory.mktemp("bomb")
    (folder / "bomb.py").write_text("class Bomb: pass\n")
    monkeypatch.syspath_prepend(folder)
    called = []
    for name in ("os.system", "torch.load", "subprocess.Popen"):
        monkeypatch.setattr(name, lambda *args, _name=name, **kwargs: called.append(_name))
    yield
    assert called == []
    assert "bomb" not in sys.modules


def _law(examples, **strategies):
    """Runs a law with this many examples and a deadline."""
    return lambda law: settings(max_examples=examples, deadline=timedelta(seconds=20))(
        given(**strategies)(law)
    )()


@contextlib.contextmanager
def _passes_or_raises():
    message = ""
    try:
        yield
    except (ConfigError, PluginError) as error:
        message = str(error)
    assert len(message) < 1500
    assert "\n" not in message


def _check(config):
    """Checks a config; a valid one survives writing and reading."""
    with _passes_or_raises():
        check_evaluation(config)
    with _passes_or_raises():
        check_config(config)
        assert parse(dump(config), "text") == config


# --- Texts ----------------------------------------------------------------------------------------

SPECIALS = [
    *("!!python/object/apply:os.system [x]", "!!python/name:os.system", "!!binary x", "! x"),
    *("&a ", "*a", "&a [*a]", "<<: ", "<<: {seed: 1}", "=", "%TAG ! tag:x,2000:\n---\n", "--- "),
    *("%YAML 9.9\n---\n", "...\n", "\t", "\x00", "\ufeff", "\x85", "\u2028", "\\ud800", "\r"),
    *('"\\ud800"', '"\\UFFFFFFFF"', '"\\0"', "'", '"', "|\n", ">-\n", "? ", "- ", ": ", "#", "@"),
    *("[" * 2000, "{a: " * 500, "- " * 500, "? " * 500, "]" * 9, "}" * 9, "[" * 20 + "]" * 20),
    *("1e999", "-1e999", ".inf", ".nan", "9" * 5000, "0x" + "f" * 9000, "0b" + "1" * 50, "0b_"),
    *("2001-01-01", "2001-99-99", "12:30:45", ":".join(["59"] * 300), "1:60:1e400", "~", "yes"),
    *("seed: 1\nseed: 2\n", "? [a]\n: 1\n", "1: 2\n", "null: 1\n", "{}", "x" * 3000, "\xff" * 9),
    *("_base_: ", "_base_: afm_digits\n", "_base_: [1]\n", "plugins: [x.py]\n", "type: "),
]
FILES = [path.read_text() for path in sorted(SHIPPED.rglob("*.yaml"))]
NAMES = config_names()
texts = st.sampled_from([*FILES, *(dump(load_config(name)) for name in NAMES[::5])])


@st.composite
def mutated_texts(draw, texts=texts):
    """Overwrites parts of a text, half of the time at the start of a value."""
    text = draw(texts)
    for _ in range(draw(st.integers(1, 3))):
        values = [match.end() for match in re.finditer(r"[:=] |[-,{\[]|=", text)]
        start = draw(st.integers(0, len(text)) | st.sampled_from(values or [0]))
        end = start + draw(st.integers(0, 12))
        special = st.sampled_from(SPECIALS)
        new = draw(special | special | st.characters() | st.sampled_from(["", text[start:end] * 2]))
        text = text[:start] + new + text[end:]
    return text[: draw(st.integers(0, len(text)))] if draw(st.integers(0, 9)) == 9 else text


@FEW_AND_MANY
def test_mutated_text(examples, tmp_path):
    path = tmp_path / "run.yaml"

    @_law(examples, text=mutated_texts(), junk=st.none() | st.binary(max_size=3))
    def law(text, junk):
        content = text.encode(errors="surrogatepass")
        path.write_bytes(content if junk is None else content[:200] + junk + content[200:])
        with _passes_or_raises():
            _check(load_config(str(path)))


# --- Structures -----------------------------------------------------------------------------------

names = st.sampled_from(NAMES)
numbers = st.one_of(
    st.sampled_from([True, False, -1, 0, -0.5, 1e-300, 1e308]),
    st.sampled_from([float("inf"), float("-inf"), float("nan"), 2**63, -(2**63)]),
    st.sampled_from([20, 30, 5000]).map(lambda digits: 10**digits),
)
components = st.one_of(
    st.sampled_from(["DiTGenerator", "MLPDiscriminator", "RepeatDepth", "dit_s_2", "math"]),
    st.sampled_from(["HingeLoss", "CosineSchedule", "AdversarialFlow", "Digits", "AdamW"]),
)
words = st.one_of(
    components,
    st.sampled_from(["", " ", "any", "\x00", "\ud800", "a\nb", *PATHS]),
    st.sampled_from([10, 300, 10**5]).map(lambda length: "x" * length),
    st.text(max_size=5),
)
keys = words | st.sampled_from(["type", "nfe", "lr", "generator", "start", None, 1, (1, 2), True])
leaves = st.none() | numbers | words
junk = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(keys, inner, max_size=2),
        st.fixed_dictionaries({"type": words | inner}, optional={"generator": inner}),
    ),
    max_leaves=5,
)


@functools.cache
def _shipped(name):
    return load_config(name)


def _places(node, path=()):
    """Yields the parent, key and path of every node of a config."""
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in items:
        yield node, key, (*path, str(key))
        if isinstance(value, dict | list):
            yield from _places(value, (*path, str(key)))


def _paths():
    shipped = [_shipped(name) for name in NAMES]
    return sorted({".".join(path) for config in shipped for *_, path in _places(config)})


@st.composite
def mutated_configs(draw):
    config = copy.deepcopy(_shipped(draw(names)))
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(config))
        (one, key, _), (other, there, _) = (draw(st.sampled_from(places)) for _ in range(2))
        action = draw(st.sampled_from(["replace", "replace", "remove", "add", "swap", "share"]))
        if action == "replace":
            one[key] = draw(junk)
        elif action == "remove":
            del one[key]
        elif action == "add" and isinstance(one, dict):
            one[draw(keys)] = draw(junk)
        elif action == "swap":
            one[key], other[there] = copy.deepcopy((other[there], one[key]))
        elif action == "share":
            one[key] = copy.deepcopy(other[there])
            other[there] = one[key]
        if not config:
            break
    return config


@FEW_AND_MANY
def test_mutated_config(examples):
    @_law(examples, config=mutated_configs())
    def law(config):
        _check(config)


@FEW_AND_MANY
def test_mutated_configs_merged(examples, tmp_path):
    @_law(examples // 2, base=mutated_configs(), over=mutated_configs())
    def law(base, over):
        with _passes_or_raises():
            for name, config in (("base", base), ("over", {"_base_": "base", **over})):
                with contextlib.suppress(ValueError):  # Python writes no number of 5000 digits.
                    (tmp_path / f"{name}.yaml").write_text(dump(config))
            _check(load_config(str(tmp_path / "over.yaml")))


# --- Overrides ------------------------------------------------------------------------------------

OVERRIDES = [
    *("objective..x=1", "=1", "=", "", ".", "a", "a=!!python/name:os.system", "a=&b [*b]", "a=*b"),
    *("objective.generator.type=os.system", "data.=", "data.type=", "evaluation.metrics.0=x"),
    *("objective=", "objective=[]", "optimizers=3", "data.type.x=1", "a=\x00", "log=1", "plugins="),
    *("plugins=[~x/y]", "plugins=['\\0']", "objective.type={a: 1}", "objective.type=FlowMatching"),
    *("objective.generator.type=RepeatDepth", "seed=1e999", "type=RepeatDepth", "_base_=x"),
]
LONG = [
    *(("", "x", "=1"), ("", "a.", "a=1"), ("seed=", "9", ""), ("a=", "[", ""), ("a=", "b,", "")),
    *(("plugins=['", "x", "']"), ("plugins=['", "../", "x']"), ("objective.", "type.", "type={}")),
]
override_texts = st.one_of(
    mutated_texts(st.sampled_from(OVERRIDES)),
    st.builds("{}={}".format, st.sampled_from(_paths()), words | st.sampled_from(SPECIALS)),
    st.builds("{}={}".format, st.sampled_from(_paths()), st.sampled_from(["2", "0.5", "{}"])),
    st.builds(
        lambda parts, length: parts[0] + parts[1] * length + parts[2],
        st.sampled_from(LONG),
        st.sampled_from([20, 40, 5000, 10**5]),
    ),
)


@FEW_AND_MANY
def test_any_override_of_any_config(examples):
    @_law(examples, name=names, overrides=st.lists(override_texts, min_size=1, max_size=4))
    def law(name, overrides):
        with _passes_or_raises():
            config = _shipped(name)
            for override in overrides:
                config = apply_override(config, override)
            _check(config)


@pytest.mark.parametrize("suffix", ["", ".yaml"])
@settings(max_examples=10)
@given(name=words | st.sampled_from(["/", "..", "afm_../../digits", "~x", "\udc80"]))
def test_any_name_of_a_config(name, suffix):
    with _passes_or_raises():
        load_config(name + suffix)


@given(base=words | st.sampled_from(["/", "..", "~x", "\udc80"]) | numbers | st.none())
def test_any_base(base, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "on_a_base.yaml"

    with _passes_or_raises():
        with contextlib.suppress(ValueError):  # Python writes no number of 5000 digits.
            path.write_text(dump({"_base_": base}))
        load_config(str(path))


# --- Examples -------------------------------------------------------------------------------------


def _at(config, path, value):
    """Returns a config with another value at a path."""
    config = copy.deepcopy(config)
    node = config
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return config


NAMES = [
    *(("objective",), ("objective", "type"), ("objective", "generator"), ("data", "type")),
    *(("objective", "generator", "type"), ("objective", "generator", "attention")),
    *(("objective", "discriminator"), ("objective", "loss"), ("objective", "penalty")),
    *(("objective", "ot_scale"), ("objective", "ot_scale", "type"), ("objective", "augmentation")),
    *(("objective", "guidance"), ("objective", "gradient_normalization"), ("objective", "nfe")),
    *(("optimizers", "generator", "type"), ("optimizers", "generator", "lr"), ("precision",)),
    *(("evaluation", "extractor"), ("evaluation", "metrics"), ("evaluation", "metrics", 0)),
]


@pytest.mark.parametrize("path", NAMES, ids=str)
def test_dotted_paths_are_unknown_names(path):
    config = _shipped("afm_digits")

    for name in PATHS:
        for value in (name, {"type": name}, {"type": {"type": name}}, [name], [{"type": name}]):
            with pytest.raises(ConfigError):
                check_config(_at(config, path, value))


@pytest.mark.parametrize("name", PATHS)
def test_plugins_are_files(name):
    with pytest.raises(PluginError, match="There is no plugin file"):
        check_config(load_config("afm_digits", [f"plugins=['{name}']"]))


SPECS = [
    *(("objective", "generator"), ("objective", "discriminator"), ("objective", "ot_scale")),
    *(("objective", "loss"), ("optimizers", "generator", "lr"), ("evaluation", "extractor")),
]


@pytest.mark.parametrize("path", SPECS, ids=str)
@pytest.mark.parametrize("kind", [None, 3, ["Digits"], {}, {"type": None}, True])
def test_types_that_are_not_names(path, kind):
    with pytest.raises(ConfigError, match=rf"^{re.escape('.'.join(path))}: "):
        check_config(_at(_shipped("afm_digits"), path, {"type": kind}))
    with pytest.raises(ConfigError, match=rf"^{path[0]}.*\b{path[-1]} must be "):
        check_config(_at(_shipped("afm_digits"), path, [{"type": "Digits"}]))


@pytest.mark.parametrize(
    "override",
    [
        *(
            "optimizers.generator.lr=.inf",
            "optimizers.generator.weight_decay=.inf",
            "ema.decay=.nan",
        ),
        *("optimizers.generator.eps=1e999", "optimizers.generator.clip_grad_norm=.inf"),
        *("objective.ot_scale=.nan", "objective.gp_scale=.inf", "objective.ot_scale.start=.inf"),
        *("objective.ot_scale.length=9223372036854775808", "optimizers.generator.betas=[0, .nan]"),
        *("objective.gradient_normalization={decay: .nan}", "num_images=1e999"),
        *("num_images=1" + "0" * 30, "seed=9223372036854775808", "evaluation.seed=1" + "0" * 30),
        *("global_batch=1" + "0" * 99, 'data={type: LatentFolder, path: "\\ud800"}'),
    ],
)
def test_unusable_values(override):
    name = override.split("=")[0].split(".")[-1]
    name = {"data": "path"}.get(name, name)

    with pytest.raises(ConfigError, match=rf"\b{name}\b.* (finite|2\*\*63|Unicode|a whole number)"):
        check_config(load_config("afm_digits", [override]))
