"""Tests for afmlib.registry.table."""

import importlib
import subprocess
import sys

import pytest

import afmlib
from afmlib import list_components
from afmlib.registry import DEPTHS, GENERATORS, REGISTRIES

GROUPS = """generators discriminators classifiers losses penalties derivatives depths
guidance augmentations schedules discretizations parameterizations objectives datasets autoencoders
extractors fields metrics attention regularizers"""


def run(code):
    """Runs code in a fresh interpreter and returns what it printed."""
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout


def test_groups():
    assert sorted(REGISTRIES) == sorted(GROUPS.split())
    assert all(registry.group == group for group, registry in REGISTRIES.items())


@pytest.mark.parametrize("group", GROUPS.split())
def test_builtins_implement_their_interface(group):
    registry = REGISTRIES[group]

    for name in registry.builtins:
        cls = registry.get(name)
        assert issubclass(cls, registry.interface)
        assert group == "attention" or cls.__name__ == name


@pytest.mark.parametrize("group", GROUPS.split())
def test_presets(group):
    registry = REGISTRIES[group]

    for name in registry.presets:
        pixels = name.startswith(("unet_", "conv_"))  # Those have no default size.
        registry.check(dict(type=name, **({"input_size": 32} if pixels else {})), name)


def test_builtins_are_exported():
    for registry in REGISTRIES.values():
        for key, path in registry.builtins.items():
            module, _, name = path.partition(":")
            assert (name or key) in importlib.import_module(module).__all__


def test_origin_of_builtins():
    listed = list_components("losses")

    assert listed["RelativisticLoss"] == "afmlib"
    assert {name for name, origin in listed.items() if origin == "afmlib"} == set(
        REGISTRIES["losses"].builtins
    )


def test_generators_include_the_depth_wrappers():
    assert set(DEPTHS.components()) < set(GENERATORS.components())
    assert GENERATORS.get("RepeatDepth") is DEPTHS.get("RepeatDepth")


def test_registry_knows_what_it_holds():
    assert "DiTGenerator" in GENERATORS
    assert "RepeatDepth" in GENERATORS
    assert "nobody" not in GENERATORS
    assert len(GENERATORS) == len(GENERATORS.components()) > 0
    assert GENERATORS


def test_listing_imports_no_component():
    code = """
import sys
from afmlib import list_components
from afmlib.registry import REGISTRIES
for group in REGISTRIES:
    list_components(group)
print(sorted({"torchvision", "timm", "mmengine.runner", "afmlib.nn"} & set(sys.modules)))
"""

    assert run(code) == "[]\n"


def test_bare_import_does_not_import_the_registry():
    code = "import sys, afmlib; print(sorted(m for m in sys.modules if m.startswith('afmlib.')))"

    assert run(code) == "[]\n"


def test_public_names_are_there():
    for name in afmlib.__all__:
        assert getattr(afmlib, name) is not None
    assert set(afmlib.__all__) <= set(dir(afmlib))
    with pytest.raises(AttributeError, match="no attribute 'build_nothing'"):
        afmlib.build_nothing  # noqa: B018
