"""Tests for afmlib.registry.distributions."""

import re
from pathlib import Path

import pytest

from afmlib import build_discriminator, build_generator
from afmlib.config import ConfigError, check_config, load_config
from afmlib.registry import REGISTRIES, MissingPluginError, UnknownComponentError
from afmlib.registry.distributions import installable, installation

PLUGINS = Path(__file__).parents[2] / "plugins"
SECTION = re.compile(r'\[project\.entry-points\."afmlib\.(\w+)"\]\n((?:\w+ = .*\n)+)')


@pytest.fixture(autouse=True)
def _nothing_installed(monkeypatch):
    monkeypatch.setattr("afmlib.registry.component_registry.entry_points", lambda group: [])


def brought():
    """Returns group, name and distribution of every entry point under plugins/."""
    for path in PLUGINS.glob("*/pyproject.toml"):
        for group, lines in SECTION.findall(path.read_text()):
            for line in lines.splitlines():
                yield group, line.split(" = ")[0], path.parent.name


def test_the_table_is_what_the_plugins_bring():
    table = {
        (group, name, plugin) for group in REGISTRIES for name, plugin in installable(group).items()
    }

    assert table == set(brought())


def test_the_command_leads_to_a_plugin_of_that_name():
    for _, _, plugin in brought():
        folder = PLUGINS.parent / installation(plugin).removeprefix("pip install ./")
        assert f'name = "{plugin}"' in (folder / "pyproject.toml").read_text()


def test_a_name_whose_plugin_is_missing_is_answered_with_how_to_install_it():
    message = r"'R3GANGenerator' among the generators: .* afmlib-r3gan .*pip install ./plugins/afm"
    with pytest.raises(MissingPluginError, match=message):
        build_generator("R3GANGenerator")


def test_a_misspelled_name_is_answered_with_what_can_be_installed():
    with pytest.raises(UnknownComponentError) as caught:
        build_discriminator("R3GANDiscriminater")

    assert not isinstance(caught.value, MissingPluginError)
    assert "Did you mean 'R3GANDiscriminator'?" in str(caught.value)
    assert "R3GANDiscriminator (pip install ./plugins/afmlib-r3gan)" in str(caught.value)


def test_what_is_installed_is_not_missing(monkeypatch, distribution):
    monkeypatch.undo()
    distribution("afmlib-r3gan", {"generators": {"R3GANGenerator": "afmlib_r3gan:G"}})

    with pytest.raises(UnknownComponentError) as caught:
        build_generator("R3GANGen")

    assert "R3GANGenerator (from afmlib-r3gan)" in str(caught.value)
    assert "not installed" not in str(caught.value)


@pytest.mark.parametrize("name", ["r3gan_digits", "r3gan_b2", "r3gan_xl2"])
def test_a_config_whose_plugin_is_missing_names_it_and_its_command(name):
    message = r"objective\.generator: .*R3GANGenerator.*pip install \./plugins/afmlib-r3gan"
    with pytest.raises(ConfigError, match=message):
        check_config(load_config(name))
