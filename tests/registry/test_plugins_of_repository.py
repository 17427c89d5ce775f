"""Tests for afmlib.registry: names of plugins of the repository that are not installed."""

import pytest

from afmlib import build_discriminator, build_generator
from afmlib.config import ConfigError, check_config, load_config
from afmlib.registry import MissingPluginError, UnknownComponentError, component_registry


@pytest.fixture(autouse=True)
def _nothing_installed(monkeypatch):
    monkeypatch.setattr("afmlib.registry.component_registry.entry_points", lambda group: [])


def test_every_plugin_folder_is_found():
    folders = {path.parent.name for path in component_registry.PLUGINS.glob("*/pyproject.toml")}
    found = {
        folder
        for group in component_registry.REGISTRIES
        for folder in component_registry._plugins_of_repository(group).values()
    }

    assert found == folders


def test_outside_a_clone(monkeypatch, tmp_path):
    monkeypatch.setattr(component_registry, "PLUGINS", tmp_path / "plugins")

    with pytest.raises(UnknownComponentError, match="Available: DiTGenerator"):
        build_generator("R3GANGenerator")


def test_missing_plugin_names_its_command():
    message = r"'R3GANGenerator' among the generators.*pip install ./plugins/afmlib-r3gan"
    with pytest.raises(MissingPluginError, match=message):
        build_generator("R3GANGenerator")


def test_misspelled_plugin_suggests_the_name():
    with pytest.raises(UnknownComponentError) as caught:
        build_discriminator("R3GANDiscriminater")

    assert not isinstance(caught.value, MissingPluginError)
    assert "Did you mean 'R3GANDiscriminator'?" in str(caught.value)
    assert "R3GANDiscriminator (pip install ./plugins/afmlib-r3gan)" in str(caught.value)


def test_installed_plugin_is_not_missing(monkeypatch, distribution):
    monkeypatch.undo()
    distribution("afmlib-r3gan", {"generators": {"R3GANGenerator": "afmlib_r3gan:G"}})

    with pytest.raises(UnknownComponentError) as caught:
        build_generator("R3GANGen")

    assert "R3GANGenerator (from afmlib-r3gan)" in str(caught.value)
    assert "not installed" not in str(caught.value)


@pytest.mark.parametrize("name", ["r3gan_digits", "r3gan_b2", "r3gan_xl2"])
def test_config_names_its_missing_plugin(name):
    message = r"objective\.generator: .*R3GANGenerator.*pip install \./plugins/afmlib-r3gan"
    with pytest.raises(ConfigError, match=message):
        check_config(load_config(name))
