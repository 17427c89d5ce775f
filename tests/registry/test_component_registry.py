"""Tests for afmlib.registry.component_registry: plugins by entry point and by decorator."""

import sys

import pytest

from afmlib import build_discriminator, build_generator, build_loss, list_components
from afmlib.interfaces import AdversarialLoss, Discriminator, Generator
from afmlib.registry import (
    DISCRIMINATORS,
    GENERATORS,
    LOSSES,
    InterfaceError,
    PluginError,
    UnknownComponentError,
)

LOSS = """
from afmlib.interfaces import AdversarialLoss

class {name}(AdversarialLoss):
    def __init__(self, margin: float = 1.0) -> None:
        super().__init__()
        self.margin = margin

    def discriminator_loss(self, logits_real, logits_fake):
        return logits_fake - logits_real

    def generator_loss(self, logits_real, logits_fake):
        return -logits_fake
"""


# --- Entry points ---------------------------------------------------------------------------------


def test_entry_point_is_listed_and_built(distribution):
    distribution(
        "afmlib-nice",
        {"losses": {"NiceLoss": "afmlib_nice:NiceLoss"}},
        LOSS.format(name="NiceLoss"),
    )

    assert list_components("losses")["NiceLoss"] == "afmlib-nice"
    assert "NiceLoss" in LOSSES
    loss = build_loss("NiceLoss", margin=3)
    assert type(loss).__module__ == "afmlib_nice"
    assert loss.margin == 3
    assert LOSSES.problems() == {}


def test_plugins_are_imported_on_use(distribution):
    module = distribution(
        "afmlib-loud", {"losses": {"LoudLoss": "afmlib_loud:LoudLoss"}}, "raise SystemExit('boom')"
    )

    assert "LoudLoss" in list_components("losses")
    build_loss("HingeLoss")
    with pytest.raises(UnknownComponentError):
        build_loss("NoLoss")

    assert module not in sys.modules


def test_unknown_name_lists_plugins(distribution):
    distribution("afmlib-nice", {"losses": {"NiceLoss": "afmlib_nice:NiceLoss"}})

    with pytest.raises(UnknownComponentError) as caught:
        build_loss("NiceLos")

    assert "Did you mean 'NiceLoss'?" in str(caught.value)
    assert "NiceLoss (from afmlib-nice)" in str(caught.value)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import no_such_module", "cannot be imported: ModuleNotFoundError: .*no_such_module"),
        ("x = 1 / 0", "cannot be imported: ZeroDivisionError"),
        ("raise SystemExit(3)", "cannot be imported: SystemExit: 3"),
        ("raise GeneratorExit", "cannot be imported: GeneratorExit$"),
        ("class Own(BaseException): pass\nraise Own", "cannot be imported: Own$"),
        ("x = 1", "cannot be imported: AttributeError: .*'Broken'"),
        ("def Broken(): pass", "is not a class"),
        ("Broken = 3", "is not a class"),
        (
            "class Broken: pass",
            r"does not derive from afmlib.interfaces.Discriminator. It lacks: forward\.",
        ),
        (
            "from torch import nn\nclass Broken(nn.Module):\n    def forward(self): pass",
            r"does not derive from afmlib.interfaces.Discriminator\.$",
        ),
        (
            "from afmlib.interfaces import Discriminator\nclass Broken(Discriminator): pass",
            r"does not implement afmlib.interfaces.Discriminator. It lacks: forward\.",
        ),
    ],
)
def test_broken_plugin(source, message, distribution):
    points = {"discriminators": {"Broken": "afmlib_broken:Broken"}}
    distribution("afmlib-broken", points, source)

    with pytest.raises(
        (PluginError, InterfaceError), match=f"'Broken' from afmlib-broken {message}"
    ):
        build_discriminator("Broken")

    assert list_components("discriminators")["Broken"] == "afmlib-broken"
    assert list(DISCRIMINATORS.problems()) == ["Broken"]
    assert "afmlib-broken" in DISCRIMINATORS.problems()["Broken"]
    assert build_discriminator("MLPDiscriminator", in_channels=2) is not None


def test_broken_plugin_beside_a_good_one(distribution):
    distribution("afmlib-broken", {"losses": {"BrokenLoss": "afmlib_broken:BrokenLoss"}}, "1 / 0")
    distribution(
        "afmlib-nice",
        {"losses": {"NiceLoss": "afmlib_nice:NiceLoss"}},
        LOSS.format(name="NiceLoss"),
    )

    assert build_loss("NiceLoss") is not None
    assert list(LOSSES.problems()) == ["BrokenLoss"]


def test_name_in_two_distributions(distribution):
    for name in ("afmlib-one", "afmlib-two"):
        module = name.replace("-", "_")
        distribution(name, {"losses": {"MyLoss": f"{module}:MyLoss"}}, LOSS.format(name="MyLoss"))

    with pytest.raises(PluginError, match="'MyLoss' is registered twice: by") as caught:
        build_loss("MyLoss")

    for text in (
        str(caught.value),
        LOSSES.problems()["MyLoss"],
        list_components("losses")["MyLoss"],
    ):
        assert "afmlib-one" in text
        assert "afmlib-two" in text


@pytest.mark.parametrize(
    ("group", "name"),
    [("losses", "HingeLoss"), ("generators", "RepeatDepth"), ("generators", "dit_xl_2")],
)
def test_builtin_comes_before_a_plugin(group, name, distribution):
    points = {group: {name: f"afmlib_thief:{name}"}}
    module = distribution("afmlib-thief", points, "raise RuntimeError('boom')")
    registry = {"losses": LOSSES, "generators": GENERATORS}[group]

    assert registry.resolve(name)[0].__module__.startswith("afmlib.")
    assert module not in sys.modules
    assert registry.problems() == {name: f"afmlib-thief registers {name!r}, which is built in."}


def test_depth_wrapper_of_a_plugin(distribution):
    source = """
from afmlib.interfaces import DepthWrapper

class Twice(DepthWrapper):
    def forward(self, latents, labels, timesteps_src=None, timesteps_tgt=None):
        return latents
"""
    distribution("afmlib-twice", {"depths": {"Twice": "afmlib_twice:Twice"}}, source)
    inner = dict(type="dit_s_2", input_size=4, depth=1)

    deep = build_generator(dict(type="Twice", repeats=2, generator=inner))

    assert deep.generator.t_embedder is not None
    assert list_components("generators")["Twice"] == "afmlib-twice"


def test_name_in_generators_and_depths(distribution):
    distribution("afmlib-one", {"generators": {"Twice": "afmlib_one:Twice"}}, "1 / 0")
    distribution("afmlib-two", {"depths": {"Twice": "afmlib_two:Twice"}}, "1 / 0")

    with pytest.raises(PluginError, match=r"afmlib-one in generators and by afmlib-two in depths"):
        build_generator("Twice")


def test_plugin_in_one_group(distribution):
    distribution(
        "afmlib-nice",
        {"losses": {"NiceLoss": "afmlib_nice:NiceLoss"}},
        LOSS.format(name="NiceLoss"),
    )

    assert "NiceLoss" not in DISCRIMINATORS
    with pytest.raises(UnknownComponentError):
        build_discriminator("NiceLoss")


# --- The decorator --------------------------------------------------------------------------------


def good_loss(name="MyLoss"):
    return type(
        name,
        (AdversarialLoss,),
        {
            "discriminator_loss": lambda self, real, fake: fake - real,
            "generator_loss": lambda self, real, fake: -fake,
        },
    )


def test_decorated_class_is_built_by_its_name():
    cls = LOSSES.register_module()(good_loss())

    assert type(build_loss("MyLoss")) is cls
    assert list_components("losses")["MyLoss"] == cls.__module__


def test_register_under_other_names():
    cls = LOSSES.register_module(name=["one", "two"])(good_loss())

    assert LOSSES.get("one") is LOSSES.get("two") is cls
    assert "MyLoss" not in LOSSES


def test_name_that_is_taken():
    LOSSES.register_module()(good_loss())

    with pytest.raises(PluginError, match=r"registers 'MyLoss' in losses, but .* already has it"):
        LOSSES.register_module()(good_loss())
    other = LOSSES.register_module(force=True)(good_loss())

    assert LOSSES.get("MyLoss") is other


@pytest.mark.parametrize("force", [False, True])
def test_name_of_a_builtin(force):
    with pytest.raises(PluginError, match="registers 'HingeLoss' in losses, but afmlib already"):
        LOSSES.register_module(force=force)(good_loss("HingeLoss"))


@pytest.mark.parametrize("name", ["dit_s_2", "RepeatDepth", "DiTGenerator"])
def test_name_of_a_preset_or_depth_wrapper(name):
    class Mine(Generator):
        def forward(self, latents, labels, timesteps_src=None, timesteps_tgt=None):
            return latents

    with pytest.raises(PluginError, match="already has it"):
        GENERATORS.register_module(name=name)(Mine)


def test_name_of_an_entry_point(distribution):
    distribution("afmlib-nice", {"losses": {"NiceLoss": "afmlib_nice:NiceLoss"}})

    with pytest.raises(PluginError, match="but afmlib-nice already has it"):
        LOSSES.register_module()(good_loss("NiceLoss"))


def test_decorator_checks_the_interface():
    class Half(AdversarialLoss):
        def generator_loss(self, logits_real, logits_fake):
            return -logits_fake

    with pytest.raises(InterfaceError, match=r"AdversarialLoss. It lacks: discriminator_loss\."):
        LOSSES.register_module()(Half)
    with pytest.raises(InterfaceError, match="is not a class"):
        LOSSES.register_module()(len)

    assert "Half" not in LOSSES


def test_abstract_methods_of_an_intermediate_class():
    from afmlib.interfaces import RepeatableGenerator

    class NoHead(RepeatableGenerator):
        num_blocks = 1

        def forward(self, latents, labels, timesteps_src=None, timesteps_tgt=None):
            return latents

        def embed(self, latents, labels):
            return latents, labels

        def embed_time(self, value):
            return value

    with pytest.raises(InterfaceError, match=r"It lacks: head, run_block\."):
        GENERATORS.register_module()(NoHead)


def test_unresolvable_annotation():
    class Riddle(Discriminator):
        def __init__(self, depth: "NoSuchType") -> None:  # noqa: F821
            super().__init__()

        def forward(self, latents, labels, timesteps=None):
            return latents

    with pytest.raises(InterfaceError, match=r"annotations of Riddle.__init__ .*NoSuchType"):
        build_discriminator(Riddle, depth=2)


def test_forget():
    cls = LOSSES.register_module()(good_loss())

    LOSSES.forget(cls.__module__)

    assert "MyLoss" not in LOSSES
    with pytest.raises(UnknownComponentError):
        build_loss("MyLoss")


def test_positional_arguments():
    with pytest.raises(TypeError, match="given by name"):
        LOSSES.build("HingeLoss", 2.0)
