"""Tests for afmlib.registry.build: all forms of specs, and mistakes in them."""

import copy
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from afmlib import (
    build_classifier,
    build_dataset,
    build_discriminator,
    build_generator,
    build_loss,
    build_objective,
    build_penalty,
    list_components,
)
from afmlib.losses.hinge import HingeLoss
from afmlib.networks.dit import DiTDiscriminator, DiTGenerator
from afmlib.networks.mlp import MLPGenerator
from afmlib.networks.repeat import RepeatDepth
from afmlib.registry import (
    GENERATORS,
    REGISTRIES,
    ComponentArgumentError,
    ComponentError,
    InterfaceError,
    UnknownComponentError,
)
from afmlib.schedules import CosineSchedule

DIT = dict(input_size=4, hidden_size=16, depth=1, num_heads=2, num_classes=3)
SIZES = {"s": (384, 12, 6), "b": (768, 12, 12), "m": (1024, 16, 16), "l": (1024, 24, 16)}
SIZES["xl"] = (1152, 28, 16)


# --- Forms of a spec ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spec",
    [
        "MLPGenerator",
        {"type": "MLPGenerator"},
        MLPGenerator,
        {"type": MLPGenerator},
        {"type": {"type": "MLPGenerator", "in_channels": 7}},
    ],
)
def test_forms_of_a_spec(spec):
    generator = build_generator(spec, in_channels=2, hidden_size=8)

    assert isinstance(generator, MLPGenerator)
    assert generator.latent_shape == (2,)


@pytest.mark.parametrize(
    ("build", "name", "cls"),
    [
        (build_generator, "DiTGenerator", "DiTGenerator"),
        (build_discriminator, "DiTDiscriminator", "DiTDiscriminator"),
        (build_classifier, "DiTClassifier", "DiTClassifier"),
    ],
)
def test_groups_and_presets(build, name, cls):
    with torch.device("meta"):
        assert type(build(name, **DIT)).__name__ == cls
        assert type(build("dit_s_4", input_size=4, depth=1)).__name__ == cls


def test_losses_penalties_and_data_are_built_by_name():
    assert build_loss("HingeLoss", margin=2).margin == 2
    assert build_penalty({"type": "FiniteDifferencePenalty", "eps": 0.5}).eps == 0.5
    assert build_dataset("Digits").num_classes == 10


@pytest.mark.parametrize("patch", [2, 4])
@pytest.mark.parametrize("size", SIZES)
def test_sizes_of_presets(size, patch):
    hidden_size, depth, num_heads = SIZES[size]
    with torch.device("meta"):
        generator = build_generator(f"dit_{size}_{patch}")

    assert generator.pos_embed.shape == (1, (32 // patch) ** 2, hidden_size)
    assert generator.num_blocks == depth
    assert generator.blocks[0].attn.num_heads == num_heads
    assert generator.x_embedder.proj.kernel_size == (patch, patch)
    assert generator.num_classes == 1000


def test_preset_is_a_type_like_any_other():
    generator = build_generator({"type": "dit_s_2", "depth": 1, "input_size": 4}, num_heads=2)

    assert isinstance(generator, DiTGenerator)
    assert generator.num_blocks == 1
    assert generator.blocks[0].attn.num_heads == 2


def test_order_of_overrides():
    spec = {"type": "dit_s_2", "depth": 3, "hidden_size": 24, "input_size": 4}

    generator = build_generator(spec, depth=2)

    assert generator.num_blocks == 2
    assert generator.pos_embed.shape[-1] == 24


def test_built_object_is_returned():
    generator = build_generator("MLPGenerator", in_channels=2)

    assert build_generator(generator) is generator
    with pytest.raises(ComponentArgumentError, match=r"already built takes no arguments: .*depth"):
        build_generator(generator, depth=2)


def test_nested_built_objects_are_never_copied():
    generator = build_generator("MLPGenerator", in_channels=2)
    discriminator = build_discriminator("MLPDiscriminator", in_channels=2)
    loss = HingeLoss()
    spec = dict(type="AdversarialFlow", generator=generator, discriminator=discriminator, loss=loss)

    objective = build_objective(spec)

    assert objective.generator is generator
    assert objective.discriminator is discriminator
    assert objective.loss is loss


def test_nested_specs():
    objective = build_objective(
        "AdversarialFlow",
        generator=dict(type="dit_s_2", **DIT),
        discriminator=dict(type="dit_s_2", **DIT),
        loss=HingeLoss,
        penalty="AutogradPenalty",
        ot_scale=dict(type="CosineSchedule", start=0.2, end=0.1),
        gp_scale=0.5,
    )

    assert isinstance(objective.generator, DiTGenerator)  # One preset name, two groups.
    assert isinstance(objective.discriminator, DiTDiscriminator)
    assert isinstance(objective.loss, HingeLoss)
    assert type(objective.penalty).__name__ == "AutogradPenalty"
    assert isinstance(objective.ot_scale, CosineSchedule)
    assert objective.gp_scale == 0.5


@given(st.integers(1, 3), st.booleans())
def test_build_does_not_change_the_spec(repeats, switched):
    inner = dict(type="dit_s_2", use_timestep_src=switched, **DIT)
    spec = dict(type="RepeatDepth", repeats=repeats, generator=inner)
    before = copy.deepcopy(spec)

    GENERATORS.check(spec, "generator")
    build_generator(spec, repeats=1)

    assert spec == before


@pytest.mark.parametrize(
    "inner", [dict(type="DiTGenerator", **DIT), dict(type=DiTGenerator, **DIT)]
)
def test_depth_wrapper_adds_the_source_time(inner):
    deep = build_generator(dict(type="RepeatDepth", repeats=2, generator=inner))

    assert isinstance(deep, RepeatDepth)
    assert deep.generator.t_embedder is not None
    assert deep.generator.t_tgt_embedder is None


def test_depth_wrapper_of_a_preset():
    with torch.device("meta"):
        deep = build_generator(dict(type="RepeatBlocks", repeats=2, generator="dit_s_4"))

    assert deep.generator.t_embedder is not None


def test_depth_wrapper_needs_the_source_time():
    plain = build_generator("DiTGenerator", **DIT)
    timed = build_generator("DiTGenerator", use_timestep_src=True, **DIT)

    assert build_generator("RepeatDepth", repeats=2, generator=timed).generator is timed
    with pytest.raises(ValueError, match="use_timestep_src=True"):
        build_generator("RepeatDepth", repeats=2, generator=plain)


def test_depth_wrapper_needs_blocks():
    with pytest.raises(TypeError, match="A MLPGenerator has no blocks to repeat"):
        build_generator(
            "RepeatDepth", repeats=2, generator=dict(type="MLPGenerator", in_channels=2)
        )


# --- What is wrong with a spec --------------------------------------------------------------------


def test_unknown_name():
    with pytest.raises(UnknownComponentError) as caught:
        build_generator("DitGenerater")

    message = str(caught.value)
    assert "no 'DitGenerater' among the generators" in message
    assert "Did you mean 'DiTGenerator'?" in message
    for name in ("DiTGenerator", "MLPGenerator", "RepeatDepth", "dit_s_2", "dit_xl_4"):
        assert name in message


def test_unknown_preset():
    with pytest.raises(UnknownComponentError, match=r"Did you mean 'dit_xl_2'\?"):
        build_generator("dit-xl-2")


def test_name_without_a_near_one():
    with pytest.raises(UnknownComponentError) as caught:
        build_loss("zzzzzz")

    assert "Did you mean" not in str(caught.value)


def test_name_of_another_group():
    with pytest.raises(UnknownComponentError, match="no 'HingeLoss' among the generators"):
        build_generator("HingeLoss")


def test_unknown_group():
    with pytest.raises(UnknownComponentError, match=r"no group 'generator'.* mean 'generators'"):
        list_components("generator")


def test_unknown_argument():
    with pytest.raises(
        ComponentArgumentError,
        match=r"DiTGenerator has no argument 'hidden_sizes'. Did you mean 'h",
    ):
        build_generator("dit_s_2", hidden_sizes=4)


def test_missing_argument():
    with pytest.raises(ComponentArgumentError, match="MLPGenerator needs the argument 'in_channel"):
        build_generator("MLPGenerator")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(in_channels="2"), "in_channels must be a whole number, got '2'"),
        (dict(in_channels=2.5), "in_channels must be a whole number, got 2.5"),
        (dict(in_channels=True), "in_channels must be a whole number, got True"),
        (dict(in_channels=None), "in_channels must be a whole number, got None"),
        (
            dict(in_channels=2, feature_scale="a"),
            "MLPGenerator.feature_scale must be a number, got 'a'",
        ),
    ],
)
def test_argument_of_the_wrong_type(arguments, message):
    with pytest.raises(ComponentArgumentError, match=message):
        build_generator("MLPGenerator", **arguments)


def test_whole_numbers_pass_for_floats():
    assert build_loss("HingeLoss", margin=2).margin == 2


def test_message_about_a_large_object_stays_short():
    generator = build_generator("DiTGenerator", **DIT)

    with pytest.raises(
        ComponentArgumentError, match=r"discriminator must be a Discriminator, got DiTG.*\.{3}"
    ):
        build_objective("AdversarialFlow", generator=generator, discriminator=generator)


@pytest.mark.parametrize("name", ["spec", "cfg", "self"])
def test_argument_may_have_any_name(name):
    with pytest.raises(ComponentArgumentError, match=f"has no argument '{name}'"):
        build_generator({"type": "dit_s_2", name: 1})


@pytest.mark.parametrize("spec", [{"type": "dit_s_2", 1: 2}, {"type": "DiTGenerator", None: 2}])
def test_argument_names_are_words(spec):
    with pytest.raises(ComponentArgumentError, match="Argument names are words"):
        build_generator(spec)


def test_spec_without_a_type_is_refused():
    with pytest.raises(ComponentArgumentError, match=r"needs a 'type'; it has .*depth"):
        build_generator({"depth": 2})


@pytest.mark.parametrize("spec", [3, None, ["DiTGenerator"], torch.nn.Linear(1, 1)])
def test_other_objects_are_not_specs(spec):
    with pytest.raises(InterfaceError, match="are built from a name, a dict with 'type' or a Gen"):
        build_generator(spec)


@pytest.mark.parametrize("cls", [torch.nn.Linear, HingeLoss, dict])
def test_class_of_another_interface(cls):
    with pytest.raises(InterfaceError, match=f"{cls.__name__} does not derive .*Generator"):
        build_generator(cls)
    with pytest.raises(InterfaceError, match=r"Module does not derive .* It lacks: forward\."):
        build_generator({"type": torch.nn.Module})


def test_base_classes_of_errors():
    for spec in ("nobody", {"type": "dit_s_2", "x": 1}, 3, {}):
        with pytest.raises(ComponentError) as caught:
            build_generator(spec)
        assert isinstance(caught.value, ValueError)


def test_path_of_a_nested_mistake():
    spec = dict(
        type="AdversarialFlow",
        generator=dict(type="RepeatDepth", repeats=2, generator=dict(type="dit_s_2", dept=3)),
        discriminator="dit_s_2",
    )

    with pytest.raises(
        ComponentArgumentError, match=r"^objective\.generator\.generator: DiTGenerator has no"
    ):
        REGISTRIES["objectives"].check(spec, "objective")


def test_provided_arguments_may_be_missing():
    spec = {"type": "MLPGenerator"}

    GENERATORS.check(spec, "generator", provided=["in_channels"])
    with pytest.raises(ComponentArgumentError, match=r"^generator: MLPGenerator needs"):
        GENERATORS.check(spec, "generator")


# --- What must never happen -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "builtins.eval",
        "subprocess.run",
        "afmlib.networks.dit.DiTGenerator",
        "afmlib.networks.dit:DiTGenerator",
        "mmengine.registry.Registry",
        "bomb.Bomb",
        "bomb:Bomb",
        "bomb",
    ],
)
@pytest.mark.parametrize("group", ["generators", "objectives", "attention"])
def test_dotted_paths_are_never_imported(group, name, tmp_path, monkeypatch, capfd):
    (tmp_path / "bomb.py").write_text("print('boom')\nclass Bomb: pass\n")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(UnknownComponentError):
        REGISTRIES[group].build({"type": name, "command": "echo boom"})
    with pytest.raises(UnknownComponentError):
        REGISTRIES[group].check({"type": name}, "here")

    assert "bomb" not in sys.modules
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("call", [eval, print, len])
def test_function_is_never_called(call):
    with pytest.raises(InterfaceError):
        build_generator({"type": call, "command": "1"})
