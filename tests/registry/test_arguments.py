"""Tests for afmlib.registry.arguments."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afmlib.registry import ComponentArgumentError
from afmlib.registry.arguments import check_arguments


class Operator:
    def __init__(self, decay: float = 0.5) -> None: ...


class Component:
    def __init__(
        self,
        number: float = 1.0,
        count: int = 1,
        numbers: Sequence[float] = (),
        table: Mapping[str, Sequence[int]] | None = None,
        mode: Literal["a", 1] = "a",
        switch: bool = True,
        operator: bool | Mapping[str, Any] | Operator = True,
        place: Mapping[str, Any] | Path = Path(),
        anything: Any = None,
        untyped=None,
    ) -> None: ...


@given(st.integers(0, 30), st.sampled_from(["x", None, True, "1", [1.0]]))
def test_every_item_of_a_sequence(position, wrong):
    numbers = [1.0] * 30
    check_arguments(Component, {"numbers": numbers})
    numbers.insert(position, wrong)

    with pytest.raises(
        ComponentArgumentError, match=r"Component\.numbers must be a list of numbers"
    ):
        check_arguments(Component, {"numbers": numbers})


@pytest.mark.parametrize("wrong", [{1: [1]}, {"a": 1}, {"a": [1], "b": [1, 0.5]}, {"a": "text"}])
def test_every_item_of_a_mapping(wrong):
    check_arguments(Component, {"table": {"a": [1], "b": []}})

    message = "Component.table must be keys with lists of whole numbers"
    with pytest.raises(ComponentArgumentError, match=message):
        check_arguments(Component, {"table": wrong})


@pytest.mark.parametrize(
    ("name", "value"),
    [("mode", True), ("mode", "b"), ("count", True), ("number", False), ("switch", 1)],
)
def test_booleans_are_not_numbers(name, value):
    check_arguments(Component, {"mode": 1, "switch": False, "number": 1, "anything": True})

    with pytest.raises(ComponentArgumentError, match=f"Component.{name} must be"):
        check_arguments(Component, {name: value})


UNFIT = [
    (float("inf"), "must be finite, got inf"),
    (float("nan"), "must be finite, got nan"),
    (2**63, r"must be below 2\*\*63 in size"),
    (-(10**5000), r"must be below 2\*\*63 in size, got a whole number of 16610 bits"),
    ("\ud800", "is not valid Unicode text"),
]


@pytest.mark.parametrize(
    ("value", "message"),
    UNFIT,
    ids=["infinite", "no number", "64 bits", "5000 digits", "surrogate"],
)
def test_values_that_no_file_can_hold(value, message):
    for name in ("anything", "untyped"):
        with pytest.raises(ComponentArgumentError, match=rf"^Component.{name} {message}"):
            check_arguments(Component, {name: value})
    with pytest.raises(ComponentArgumentError, match=rf"^Component.anything\[1\]\['a'\] {message}"):
        check_arguments(Component, {"anything": [0, {"a": value}]})
    with pytest.raises(ComponentArgumentError, match=rf"^A key of Component.anything {message}"):
        check_arguments(Component, {"anything": {value: 0}})


def test_largest_numbers():
    check_arguments(Component, {"number": 1e308, "count": 2**63 - 1, "anything": -(2**63) + 1})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"decy": 0.5}, "Operator has no argument 'decy'. Did you mean 'decay'"),
        ({"decay": "slow"}, "Operator.decay must be a number, got 'slow'"),
        ({"decay": float("nan")}, r"Component.operator\['decay'\] must be finite"),
    ],
)
def test_mapping_in_place_of_an_object(arguments, message):
    check_arguments(Component, {"operator": {"decay": 0.9}})

    with pytest.raises(ComponentArgumentError, match=message):
        check_arguments(Component, {"operator": arguments})


def test_mapping_for_a_foreign_class():
    check_arguments(Component, {"place": {"anything": "goes"}})


def test_mapping_for_gradient_normalization():
    from afmlib.registry import OBJECTIVES

    spec = dict(
        type="AdversarialFlow",
        generator="dit_s_2",
        discriminator="dit_s_2",
        gradient_normalization=dict(decy=0.5),
    )

    with pytest.raises(
        ComponentArgumentError,
        match=r"^objective: AdversarialFlow.gradient_normalization: .*Did you mean 'decay'",
    ):
        OBJECTIVES.check(spec, "objective")


def test_argument_names_of_other_types():
    for name in (1, None, "x" * 10**5):
        with pytest.raises(ComponentArgumentError, match="has no argument") as caught:
            check_arguments(Component, {name: 1})
        assert len(str(caught.value)) < 300


WHOLE = [
    ("count", 1e6, 1_000_000),
    ("mode", 1.0, 1),
    ("numbers", [1, 2.0], [1, 2.0]),
    ("table", {"a": [1e3, 2]}, {"a": [1000, 2]}),
    ("anything", 1e6, 1e6),
]


@pytest.mark.parametrize(("name", "value", "expected"), WHOLE)
def test_whole_floats_become_ints(name, value, expected):
    found = check_arguments(Component, {name: value})[name]

    assert repr(found) == repr(expected)


@pytest.mark.parametrize("value", [1000.5, float("inf"), "many", None])
def test_only_whole_floats_become_ints(value):
    with pytest.raises(ComponentArgumentError, match="count must be a whole number, got"):
        check_arguments(Component, {"count": value}, owner="")


HINTS = [
    (Literal[1, 3], "1 or 3"),
    (int | Literal["any"], "a whole number or 'any'"),
    (float | Mapping[str, Any], "a number or keys and values"),
    (int | float | None, "a number"),
    (str | Mapping[str, Any], "a name or keys and values"),
    (Sequence[str | Mapping[str, Any]], "a list of names or keys and values"),
    (Sequence[Operator] | None, "a list of Operator"),
    (tuple[float, float], "a list of 2 numbers"),
    (tuple[int, ...], "a list of whole numbers"),
    (Mapping[str, int], "keys with whole numbers"),
    (Operator, "an Operator"),
    (None, "None"),
]


@pytest.mark.parametrize(("hint", "words"), HINTS, ids=[words for _, words in HINTS])
def test_types_in_plain_words(hint, words):
    class Taker:
        def __init__(self, value: hint) -> None: ...

    with pytest.raises(ComponentArgumentError, match=rf"^Taker.value must be {words}, got \{{1"):
        check_arguments(Taker, {"value": {1: 2j}})
