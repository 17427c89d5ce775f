"""Tests for afmlib.io.official_layout."""

import official_layout as layout
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from afmlib.io.checked_files import CheckpointError
from afmlib.io.official_layout import OFFICIAL_FID, OfficialName, parse_name, recognize
from afmlib.networks.dit import DiTGenerator

MAKERS = {
    "generator": layout.generator,
    "discriminator": layout.discriminator,
    "classifier": layout.classifier,
}


@pytest.mark.parametrize("size", layout.SIZES)
@pytest.mark.parametrize("kind", MAKERS)
def test_official_sizes(size, kind):
    depth, hidden, heads = layout.SIZES[size]

    found = recognize(layout.without_memory(MAKERS[kind](depth, hidden)))

    assert found.kind == kind
    wanted = dict(
        input_size=32,
        patch_size=2,
        in_channels=4,
        hidden_size=hidden,
        depth=depth,
        num_heads=heads,
        mlp_ratio=4.0,
        num_classes=1000,
        qk_norm=False,
    )
    assert {name: found.arguments[name] for name in wanted} == wanted


@given(
    side=st.integers(1, 6),
    patch=st.integers(1, 4),
    channels=st.integers(1, 4),
    hidden=st.sampled_from([8, 24, 48]),
    depth=st.integers(1, 4),
    classes=st.integers(1, 6),
    kind=st.sampled_from(list(MAKERS)),
)
def test_sizes_from_shapes(side, patch, channels, hidden, depth, classes, kind):
    sizes = dict(tokens=side**2, patch=patch, channels=channels)
    shapes = MAKERS[kind](depth, hidden, classes=classes, **sizes)

    found = recognize(layout.without_memory(shapes), num_heads=2)

    wanted = dict(
        input_size=side * patch,
        patch_size=patch,
        in_channels=channels,
        hidden_size=hidden,
        depth=depth,
        num_heads=2,
        num_classes=classes,
    )
    assert {name: found.arguments[name] for name in wanted} == wanted


@given(hidden=st.sampled_from([8, 12, 44, 100]), width=st.integers(1, 500))
def test_mlp_ratio_gives_same_width(hidden, width):
    shapes = layout.generator(1, hidden) | {"blocks.0.mlp.fc1.weight": (width, hidden)}

    ratio = recognize(layout.without_memory(shapes), num_heads=1).arguments["mlp_ratio"]

    assert int(hidden * ratio) == width


@pytest.mark.parametrize("times", [(), ("t_embedder",), ("t_embedder", "t_tgt_embedder")])
def test_time_embedders(times):
    generator = recognize(layout.without_memory(layout.generator(12, 768, times=times)))

    assert generator.arguments["use_timestep_src"] == ("t_embedder" in times)
    assert generator.arguments["use_timestep_tgt"] == ("t_tgt_embedder" in times)
    shapes = layout.discriminator(12, 768, times=times[:1])
    assert recognize(layout.without_memory(shapes)).arguments["use_timestep"] == bool(times)


def test_num_heads():
    sizes = dict(input_size=4, hidden_size=24, depth=1, num_classes=2, qk_norm=True)
    state = DiTGenerator(num_heads=3, **sizes).state_dict()

    assert recognize(state).arguments["num_heads"] == 3
    state = layout.without_memory(layout.generator(1, 24))
    with pytest.raises(CheckpointError, match=r"hidden size 24.*: give num_heads"):
        recognize(state, path="my.pth")
    with pytest.raises(CheckpointError, match=r"num_heads 5 does not divide .* 24 of my\.pth"):
        recognize(state, num_heads=5, path="my.pth")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.clear(), "not an official network: it has none of"),
        (
            lambda state: state.update(dis_embed=torch.zeros(768)),
            r"dis_embed and final_layer",
        ),
        (lambda state: state.pop("pos_embed"), "pos_embed is missing"),
        (lambda state: state.update(pos_embed=torch.zeros(1, 255, 768)), "not a square number"),
        (lambda state: state.update(pos_embed=torch.zeros(256, 768)), r"pos_embed has shape \(256"),
        (lambda state: [state.pop(key) for key in list(state) if "blocks" in key], "has no blocks"),
    ],
)
def test_invalid_layout_raises(change, message):
    state = layout.without_memory(layout.generator(12, 768))
    change(state)

    with pytest.raises(CheckpointError, match=message):
        recognize(state)


# --- File names ---


def test_thirteen_generators():
    assert set(OFFICIAL_FID) == set(layout.GENERATORS)
    assert len(OFFICIAL_FID) == 13


@pytest.mark.parametrize("name", layout.GENERATORS)
@pytest.mark.parametrize("form", ["{}.pth", "hf://who/what/{}_FID2.38.pth", "D:/x/{}.safetensors"])
def test_parse_name(name, form):
    steps = int(name.split("nfe")[0].rsplit("_", 1)[-1])
    layers = {"56layer": 2, "112layer": 4}.get(name.split("_")[1], 1)

    assert parse_name(form.format(name)) == OfficialName(nfe=steps, repeats=layers)


@pytest.mark.parametrize(
    "name", ["renamed.pth", "model_xl2.pth", "2nfe.pth", "axl2_1nfe.pth", "xl2_1nfe/model.pth", ""]
)
def test_parse_unknown_name(name):
    assert parse_name(name) == OfficialName()


@pytest.mark.parametrize("layers", [0, 1, 55, 57, 100])
def test_parse_name_with_odd_layers_raises(layers):
    with pytest.raises(ValueError, match=rf"{layers} layers.* 28 blocks.* give repeats"):
        parse_name(f"xl2_{layers}layer_1nfe_guided.pth")
