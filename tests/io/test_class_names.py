"""Tests for afmlib.io.class_names."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from timm.data import ImageNetInfo

from afmlib.io.class_names import label_indices, names_of_classes

INFO = ImageNetInfo()
NAMES = [INFO.index_to_description(index) for index in range(1000)]


def find(*labels):
    return label_indices(labels, 1000)


def test_1000_classes_are_imagenet():
    assert names_of_classes(1000) == NAMES
    assert names_of_classes(10) == []
    assert names_of_classes(None) == []


def test_indices_and_names_ignore_case():
    assert find("golden retriever", "207", "Golden  Retriever", "golden_retriever") == [207] * 4
    assert find("robin, American robin, Turdus migratorius") == [15]


@given(st.integers(0, 999))
def test_main_names(index):
    name = NAMES[index].split(",")[0]
    namesakes = [other for other in NAMES if other.split(",")[0].lower() == name.lower()]

    if len(namesakes) == 1:
        assert find(name) == [index]
    else:
        with pytest.raises(ValueError, match=re.escape(f"{index} ({NAMES[index]})")):
            find(name)


@given(st.integers(0, 999).filter(lambda index: "," in NAMES[index]))
def test_full_descriptions_are_unique(index):
    assert find(NAMES[index]) == [index]


@pytest.mark.parametrize(
    ("name", "choices"), [("crane", (134, 517)), ("maillot", (638, 639)), ("Panther", (286, 290))]
)
def test_ambiguous_names_raise(name, choices):
    with pytest.raises(ValueError, match=f"{name!r} is the name of several classes") as error:
        find(name)
    assert all(f"{index} (" in str(error.value) for index in choices)


def test_main_name_beats_synonym():
    assert "partridge" in NAMES[82]
    assert find("partridge") == [86]


def test_misspelled_name_gets_suggestion():
    with pytest.raises(ValueError, match="no class 'goldn retriver'") as error:
        find("goldn retriver")
    assert "Did you mean 'golden retriever', class 207?" in str(error.value)
    with pytest.raises(ValueError, match=r"no class 'xxxxxxxx'\.$"):
        find("xxxxxxxx")


def test_stored_names_beat_imagenet():
    stored = [f"thing {index}" for index in range(1000)]

    assert label_indices(["thing 7"], 1000, stored) == [7]
    with pytest.raises(ValueError, match="no class 'golden retriever'"):
        label_indices(["golden retriever"], 1000, stored)


def test_wordnet_ids():
    stored = [INFO.index_to_label_name(index) for index in (5, 207, 0)]

    assert label_indices(["golden retriever"], 3, stored) == [1]


def test_stored_numbers_do_not_hide_imagenet():
    assert label_indices(["golden retriever"], 1000, [str(index) for index in range(1000)]) == [207]


def test_no_names_raises():
    with pytest.raises(ValueError, match=re.escape("no class names")):
        label_indices(["three"], 10)
    assert label_indices(["3", "-1"], 10) == [3, -1]  # Whether there are such is asked elsewhere.
