"""Tests for afmlib.io.official_names."""

import official_layout as layout
import pytest

from afmlib.io.official_names import PUBLISHED, PublishedName, parse_name


def test_the_thirteen_are_those_of_the_specification():
    assert set(PUBLISHED) == set(layout.GENERATORS)
    assert len(PUBLISHED) == 13


@pytest.mark.parametrize("name", layout.GENERATORS)
@pytest.mark.parametrize("form", ["{}.pth", "hf://who/what/{}_FID2.38.pth", "D:/x/{}.safetensors"])
def test_a_name_says_steps_and_repeats(name, form):
    steps = int(name.split("nfe")[0].rsplit("_", 1)[-1])
    layers = {"56layer": 2, "112layer": 4}.get(name.split("_")[1], 1)

    assert parse_name(form.format(name)) == PublishedName(nfe=steps, repeats=layers)


@pytest.mark.parametrize(
    "name", ["renamed.pth", "model_xl2.pth", "2nfe.pth", "axl2_1nfe.pth", "xl2_1nfe/model.pth", ""]
)
def test_other_names_say_nothing(name):
    assert parse_name(name) == PublishedName()


@pytest.mark.parametrize("layers", [0, 1, 55, 57, 100])
def test_layers_that_no_repetition_makes_are_refused(layers):
    with pytest.raises(ValueError, match=rf"{layers} layers, and xl2 has 28 blocks.* give repeats"):
        parse_name(f"xl2_{layers}layer_1nfe_guided.pth")
