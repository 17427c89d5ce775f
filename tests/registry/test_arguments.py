"""Tests for afmlib.registry.arguments: what a constructor is given, checked before it is called."""

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
def test_every_item_of_a_sequence_is_checked(position, wrong):
    numbers = [1.0] * 30
    check_arguments(Component, {"numbers": numbers})
    numbers.insert(position, wrong)

    with pytest.raises(ComponentArgumentError, match=r"Component.numbers is Sequence\[float\]"):
        check_arguments(Component, {"numbers": numbers})


@pytest.mark.parametrize("wrong", [{1: [1]}, {"a": 1}, {"a": [1], "b": [1, 0.5]}, {"a": "text"}])
def test_every_key_and_value_of_a_mapping_is_checked(wrong):
    check_arguments(Component, {"table": {"a": [1], "b": []}})

    with pytest.raises(
        ComponentArgumentError, match=r"Component\.table is keys and values or None"
    ):
        check_arguments(Component, {"table": wrong})


@pytest.mark.parametrize(
    ("name", "value"),
    [("mode", True), ("mode", "b"), ("count", True), ("number", False), ("switch", 1)],
)
def test_a_switch_is_no_number_and_a_number_no_switch(name, value):
    check_arguments(Component, {"mode": 1, "switch": False, "number": 1, "anything": True})

    with pytest.raises(ComponentArgumentError, match=f"Component.{name} is"):
        check_arguments(Component, {name: value})


UNFIT = [
    (float("inf"), "must be finite, got inf"),
    (float("nan"), "must be finite, got nan"),
    (2**63, r"must be below 2\*\*63 in size"),
    (-(10**5000), r"must be below 2\*\*63 in size, got a whole number of 16610 bits"),
    ("\ud800", "is no valid Unicode text"),
]


@pytest.mark.parametrize(
    ("value", "message"),
    UNFIT,
    ids=["infinite", "no number", "64 bits", "5000 digits", "surrogate"],
)
def test_what_no_run_can_use_is_refused_wherever_it_stands(value, message):
    for name in ("anything", "untyped"):
        with pytest.raises(ComponentArgumentError, match=rf"^Component.{name} {message}"):
            check_arguments(Component, {name: value})
    with pytest.raises(ComponentArgumentError, match=rf"^Component.anything\[1\]\['a'\] {message}"):
        check_arguments(Component, {"anything": [0, {"a": value}]})
    with pytest.raises(ComponentArgumentError, match=rf"^A key of Component.anything {message}"):
        check_arguments(Component, {"anything": {value: 0}})


def test_the_largest_numbers_are_taken():
    check_arguments(Component, {"number": 1e308, "count": 2**63 - 1, "anything": -(2**63) + 1})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"decy": 0.5}, "Operator has no argument 'decy'. Did you mean 'decay'"),
        ({"decay": "slow"}, "Operator.decay is float, not str: 'slow'"),
        ({"decay": float("nan")}, r"Component.operator\['decay'\] must be finite"),
    ],
)
def test_keys_and_values_in_place_of_an_object_are_arguments_of_its_class(arguments, message):
    check_arguments(Component, {"operator": {"decay": 0.9}})

    with pytest.raises(ComponentArgumentError, match=message):
        check_arguments(Component, {"operator": arguments})


def test_of_a_class_from_elsewhere_nothing_says_what_the_keys_mean():
    check_arguments(Component, {"place": {"anything": "goes"}})


def test_the_gradient_normalization_is_such_an_object():
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


def test_an_argument_that_is_no_word_is_unknown():
    for name in (1, None, "x" * 10**5):
        with pytest.raises(ComponentArgumentError, match="has no argument") as caught:
            check_arguments(Component, {name: 1})
        assert len(str(caught.value)) < 300
