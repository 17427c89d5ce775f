"""Tests for afmlib.registry: arguments that are lists of components."""

from collections.abc import Sequence

import pytest

from afmlib.interfaces import Regularizer, Schedule
from afmlib.registry import (
    REGULARIZERS,
    SCHEDULES,
    ComponentArgumentError,
    ComponentError,
    ComponentRegistry,
    InterfaceError,
    nested_registries,
)


class Term(Regularizer):
    def __init__(self, scale: float = 1.0, length: int = 1) -> None:
        super().__init__()
        self.scale, self.length = scale, length

    def forward(self, *args, **kwargs):
        raise AssertionError("not called")


class Takes(Schedule):
    """Any component will do: this one takes lists of others."""

    def __init__(
        self,
        terms: Sequence[Regularizer] | None = None,
        more: list[Regularizer] = [],  # noqa: B006
        schedules: Sequence[Schedule | float] = (),
    ) -> None:
        super().__init__()
        self.terms, self.more, self.schedules = terms, more, schedules

    def __call__(self, num_images, total_images):
        return 0.0

    forward = value = __call__


for _name in Schedule.__abstractmethods__:
    setattr(Takes, _name, Takes.__call__)
Takes.__abstractmethods__ = frozenset()


@pytest.fixture(autouse=True)
def _registered():
    REGULARIZERS.register_module()(Term)
    SCHEDULES.register_module()(Takes)


def test_nested_registries_of_lists():
    assert nested_registries(Takes) == {
        "terms": REGULARIZERS,
        "more": REGULARIZERS,
        "schedules": SCHEDULES,
    }


@pytest.mark.parametrize("name", ["terms", "more"])
def test_lists_are_built_in_order(name):
    built = Term()
    specs = ["Term", {"type": "Term", "scale": 0.1, "length": 2.0}, built, Term]

    takes = SCHEDULES.build({"type": "Takes", name: specs})

    found = getattr(takes, name)
    assert [type(term) for term in found] == [Term] * 4
    assert [term.scale for term in found] == [1.0, 0.1, 1.0, 1.0]
    assert repr(found[1].length) == "2"
    assert found[2] is built
    assert specs[0] == "Term"


@pytest.mark.parametrize("terms", [None, [], ()])
def test_empty_lists_are_kept(terms):
    SCHEDULES.check({"type": "Takes", "terms": terms}, "here")

    assert not SCHEDULES.build({"type": "Takes", "terms": terms}).terms


@pytest.mark.parametrize(
    ("item", "error", "message"),
    [
        ({"type": "Trem"}, ComponentError, r"^objective\.terms\[1\]: There is no 'Trem'.*'Term'"),
        ({"type": "Term", "scal": 1}, ComponentArgumentError, r"terms\[1\]: .*'scal'.*'scale'"),
        ({"scale": 1}, ComponentArgumentError, r"terms\[1\]: .*needs a 'type'"),
        (3, InterfaceError, r"terms\[1\]: regularizers are built from .* not from int: 3"),
        ("os.system", ComponentError, r"terms\[1\]: There is no 'os.system'"),
    ],
)
def test_mistakes_name_the_item(item, error, message):
    spec = {"type": "Takes", "terms": ["Term", item]}

    with pytest.raises(error, match=message):
        SCHEDULES.check(spec, "objective")
    with pytest.raises(error):
        SCHEDULES.build(spec)


@pytest.mark.parametrize("terms", ["Term", {"type": "Term"}, 3])
def test_a_list_is_needed(terms):
    with pytest.raises(ComponentArgumentError, match=r"Takes\.terms must be a list of Reg"):
        SCHEDULES.check({"type": "Takes", "terms": terms}, "objective")


def test_group_of_regularizers():
    assert isinstance(REGULARIZERS, ComponentRegistry)
    assert REGULARIZERS.interface is Regularizer
