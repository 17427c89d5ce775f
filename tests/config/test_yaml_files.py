"""Tests for afmlib.config.yaml_files."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afmlib.config.yaml_files import ConfigError, dump, parse, read

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(min_codepoint=32, max_codepoint=126)),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("abcdef_", min_size=1), inner),
)


@given(st.dictionaries(st.text("abcdef_", min_size=1), plain))
def test_plain_data_survive_dump_and_parse(config):
    assert parse(dump(config), "text") == config


@pytest.mark.parametrize(("text", "value"), [("1e-4", 1e-4), ("2E3", 2000.0), ("-1e+2", -100.0)])
def test_an_exponent_without_a_dot_is_a_number(text, value):
    assert parse(f"lr: {text}", "text") == {"lr": value}


@pytest.mark.parametrize("text", ["1e", "e4", "dit_1e4", "1e4x"])
def test_what_only_looks_like_an_exponent_stays_text(text):
    assert parse(f"name: {text}", "text") == {"name": text}


@pytest.mark.parametrize(
    "text",
    [
        "a: !!python/object/apply:os.system ['touch executed']",
        "a: !!python/name:os.system",
        "!!python/object/new:os.system {}",
    ],
)
def test_a_tag_runs_nothing(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ConfigError, match="not valid YAML"):
        parse(text, "text")

    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "text", ["a: 1\na: 2", "[", "a: {b: 1, b: 2}", "1: 2", "? [1, 2]\n: 3", "a: \x00"]
)
def test_bad_yaml_is_one_error_that_names_its_source(text):
    with pytest.raises(ConfigError, match=r"^here\.yaml is not valid YAML"):
        parse(text, "here.yaml")


@given(st.text(max_size=200))
def test_any_text_parses_or_is_refused_by_one_error(text):
    with contextlib.suppress(ConfigError):
        parse(text, "text")


def test_a_file_must_hold_keys_and_values(tmp_path):
    (tmp_path / "list.yaml").write_text("[1, 2]")

    with pytest.raises(ConfigError, match="must hold keys and values"):
        read(tmp_path / "list.yaml")


def test_a_file_that_is_missing_or_not_text_is_refused(tmp_path):
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\xd8")

    for name in ("binary.yaml", "missing.yaml"):
        with pytest.raises(ConfigError, match=f"{name} cannot be read"):
            read(tmp_path / name)
