"""Tests for afmlib.config.yaml_files."""

import contextlib
import os
import tracemalloc

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from afmlib.config.yaml_files import MAX_DEPTH, MAX_LENGTH, ConfigError, dump, parse, read

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.text("0123456789xbeEinf.:-+_~=<&*!", max_size=12)
    | st.text("ab \t\n\r\x85\u2028\ufeff", max_size=12),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("abcdef_", min_size=1), inner),
)


@given(st.dictionaries(st.text("abcdef_", min_size=1), plain))
def test_dump_and_parse_are_inverse(config):
    assert parse(dump(config), "text") == config


@given(st.dictionaries(st.text("abcdef_", min_size=1), plain))
def test_other_readers_read_the_same(config):
    def texts(value):
        if isinstance(value, dict | list):
            for inner in value.values() if isinstance(value, dict) else value:
                yield from texts(inner)
        elif isinstance(value, str):
            yield value

    assert list(texts(yaml.safe_load(dump(config)))) == list(texts(config))


def test_shared_objects_have_no_alias():
    betas, spec = [0.0, 0.9], {"type": "HingeLoss"}
    config = {"a": betas, "b": betas, "c": {"d": spec, "e": [spec, spec]}}

    text = dump(config)

    assert "&" not in text
    assert parse(text, "text") == config


@pytest.mark.parametrize(("text", "value"), [("1e-4", 1e-4), ("2E3", 2000.0), ("-1e+2", -100.0)])
def test_exponents_without_a_dot(text, value):
    assert parse(f"lr: {text}", "text") == {"lr": value}


@pytest.mark.parametrize("text", ["1e", "e4", "dit_1e4", "1e4x"])
def test_texts_like_exponents(text):
    assert parse(f"name: {text}", "text") == {"name": text}


@pytest.mark.parametrize("text", ["2001-01-01", "12:30", "1:30.5", "=", "<<", "1" * 101])
def test_dates_times_and_long_numbers(text):
    assert parse(f"path: {text}", "text") == {"path": text}


@pytest.mark.parametrize(
    ("text", "value"),
    [("1_000", 1000), ("0x1F", 31), ("0b11", 3), ("-7", -7), (".5", 0.5), ("-1.", -1.0)],
)
def test_numbers(text, value):
    assert parse(text, "text") == value


@pytest.mark.parametrize(
    "text",
    [
        "a: !!python/object/apply:os.system ['touch executed']",
        "a: !!python/name:os.system",
        "!!python/object/new:os.system {}",
        "!!set {a}",
        "!!binary aaaa",
        "a: ! b",
        "%TAG ! tag:yaml.org,2002:python/\n---\na: !name:os.system",
    ],
)
def test_tags_run_nothing(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ConfigError, match=r"not valid YAML: tags \(!\) are not allowed"):
        parse(text, "text")

    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "text", ["a: 1\na: 2", "[", "a: {b: 1, b: 2}", "1: 2", "? [1, 2]\n: 3", "a: \x00"]
)
def test_bad_yaml_names_its_source(text):
    with pytest.raises(ConfigError, match=r"^here\.yaml is not valid YAML"):
        parse(text, "here.yaml")


@given(st.text(max_size=200))
def test_any_text(text):
    with contextlib.suppress(ConfigError):
        parse(text, "text")


def test_file_without_keys(tmp_path):
    (tmp_path / "list.yaml").write_text("[1, 2]")

    with pytest.raises(ConfigError, match="must be keys and values"):
        read(tmp_path / "list.yaml")


def test_missing_or_binary_file(tmp_path):
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\xd8")

    for name in ("binary.yaml", "missing.yaml"):
        with pytest.raises(ConfigError, match=f"{name} cannot be read"):
            read(tmp_path / name)


def test_billion_laughs():
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    tracemalloc.start()

    with pytest.raises(ConfigError, match=r"anchors and aliases \(& and \*\) are not allowed"):
        parse("\n".join(lines), "text")

    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


@pytest.mark.parametrize("text", ["*a", "&a 1", "a: &a {b: 1}\nc: {<<: *a}", "&a [*a]"])
def test_anchors_and_aliases(text):
    with pytest.raises(ConfigError, match="anchors and aliases"):
        parse(text, "text")


@pytest.mark.parametrize("bracket", ["[", "- ", "? ", "{a: "])
def test_too_deep_nesting(bracket):
    with pytest.raises(ConfigError, match=f"more than {MAX_DEPTH} levels"):
        parse(bracket * 10_000, "text")


def test_deepest_nesting():
    parse("[" * MAX_DEPTH + "]" * MAX_DEPTH, "text")

    with pytest.raises(ConfigError, match="levels"):
        parse("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "text")


def test_long_text(tmp_path):
    path = tmp_path / "long.yaml"
    path.write_text("a: " + "é" * MAX_LENGTH)

    with pytest.raises(ConfigError, match="longer than"):
        parse(path.read_text(), "text")
    with pytest.raises(ConfigError, match="longer than"):
        read(path)


@pytest.mark.parametrize("text", ["x" * 10**5 + ": 1\n" + "x" * 10**5 + ": 2", "[" + "9," * 999])
def test_message_shortens_long_text(text):
    with pytest.raises(ConfigError) as caught:
        parse(text, "text")

    assert len(str(caught.value)) < 500
    assert "\n" not in str(caught.value)


def test_invalid_letter():
    with pytest.raises(ConfigError, match="not valid YAML"):
        parse('"\\UFFFFFFFF"', "text")


def test_only_plain_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "x.yaml")

    with pytest.raises(ConfigError, match=r"x\.yaml cannot be read: .* is a FIFO"):
        read(tmp_path / "x.yaml")
