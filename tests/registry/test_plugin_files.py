"""Tests for afmlib.registry.plugin_files."""

import sys

import pytest

from afmlib import build_loss, list_components
from afmlib.registry import LOSSES, PluginError, load_plugin_file

SOURCE = """
from afmlib.interfaces import AdversarialLoss
from afmlib.registry import LOSSES


@LOSSES.register_module()
class {name}(AdversarialLoss):
    margin = {margin}

    def discriminator_loss(self, logits_real, logits_fake):
        return logits_fake - logits_real

    def generator_loss(self, logits_real, logits_fake):
        return -logits_fake
"""


@pytest.fixture(autouse=True)
def _modules():
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("afmlib_plugin_"):
            del sys.modules[name]


@pytest.fixture
def write(tmp_path):
    def write(path, source=None, name="MyLoss", margin=1):
        path = tmp_path / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(SOURCE.format(name=name, margin=margin) if source is None else source)
        return path

    return write


@pytest.mark.parametrize("kind", [str, lambda path: path])
def test_origin_of_components(kind, write):
    path = write("my_loss.py")

    load_plugin_file(kind(path))

    assert build_loss("MyLoss").margin == 1
    assert list_components("losses")["MyLoss"] == str(path)


def test_file_runs_once(write, monkeypatch):
    path = write("my_loss.py")
    load_plugin_file(path)
    cls = LOSSES.get("MyLoss")
    monkeypatch.chdir(path.parent)

    load_plugin_file(path)
    load_plugin_file("my_loss.py")
    load_plugin_file(f"../{path.parent.name}/my_loss.py")

    assert LOSSES.get("MyLoss") is cls


def test_equal_names_in_two_folders(write):
    one, two = write("one/d.py", name="OneLoss"), write("two/d.py", name="TwoLoss", margin=2)

    for path in (one, two, one, two):
        load_plugin_file(path)

    assert build_loss("OneLoss").margin == 1
    assert build_loss("TwoLoss").margin == 2
    assert list_components("losses")["OneLoss"] == str(one)
    assert sys.modules[type(build_loss("OneLoss")).__module__].OneLoss is LOSSES.get("OneLoss")


def test_home_folder(write, monkeypatch):
    path = write("home/d.py")
    monkeypatch.setenv("HOME", str(path.parent))

    load_plugin_file("~/d.py")

    assert "MyLoss" in LOSSES


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("1 / 0", "cannot be run: ZeroDivisionError"),
        ("import no_such_module", "cannot be run: ModuleNotFoundError"),
        ("def f(:", "cannot be run: SyntaxError"),
        ("raise SystemExit(1)", "cannot be run: SystemExit"),
        ("raise GeneratorExit", "cannot be run: GeneratorExit$"),
        ("class Own(BaseException): pass\nraise Own('why')", "cannot be run: Own: why$"),
        (
            "class Mute(BaseException):\n    def __str__(self): raise self\nraise Mute",
            "cannot be run: Mute$",
        ),
        (
            "from afmlib.registry import LOSSES\n@LOSSES.register_module()\nclass A: pass",
            "is not valid: losses 'A' from .*d.py does not derive from .*AdversarialLoss. It "
            "lacks: discriminator_loss, generator_loss",
        ),
        (SOURCE.format(name="HingeLoss", margin=1), "is not valid: .*'HingeLoss' in losses, but"),
    ],
)
def test_file_that_raises(source, message, write):
    path = write("d.py", source)

    with pytest.raises(PluginError, match=f"The plugin file {path} {message}"):
        load_plugin_file(path)


def test_failed_file_registers_nothing(write):
    path = write("d.py", SOURCE.format(name="MyLoss", margin=1) + "\n1 / 0\n")
    with pytest.raises(PluginError):
        load_plugin_file(path)
    assert "MyLoss" not in LOSSES

    write("d.py", margin=22)
    load_plugin_file(path)

    assert build_loss("MyLoss").margin == 22


def test_missing_file_and_folder(tmp_path):
    for path in (tmp_path / "nothing.py", tmp_path):
        with pytest.raises(PluginError, match=f"There is no plugin file {path}"):
            load_plugin_file(path)


def test_file_of_another_kind(write):
    with pytest.raises(PluginError, match="is not a Python file"):
        load_plugin_file(write("d.yaml", "a: 1"))


def test_name_in_two_files(write):
    one, two = write("one.py"), write("two.py")
    load_plugin_file(one)

    with pytest.raises(PluginError, match=f"{two} is not valid: .*but {one} already has it"):
        load_plugin_file(two)

    assert list_components("losses")["MyLoss"] == str(one)


@pytest.mark.parametrize(
    "name",
    ["x" * 5000 + ".py", "x\0.py", "~no_such_user/x.py", "\ud800.py"],
    ids=["long", "null", "home", "surrogate"],
)
def test_impossible_file_name(name):
    with pytest.raises(PluginError, match="There is no plugin file") as caught:
        load_plugin_file(name)

    assert len(str(caught.value)) < 200


def test_interrupt_passes_and_registers_nothing(write):
    source = SOURCE.format(name="MyLoss", margin=1) + "\nraise KeyboardInterrupt"
    path = write("interrupted.py", source)

    with pytest.raises(KeyboardInterrupt):
        load_plugin_file(path)

    assert "MyLoss" not in LOSSES
    write("interrupted.py")
    load_plugin_file(path)  # It is not taken for loaded.
    assert "MyLoss" in LOSSES
