"""Fixtures for registries: fake distributions, and a reset after each test."""

import importlib
import sys
from pathlib import Path

import pytest

from afmlib.registry import REGISTRIES


@pytest.fixture(autouse=True)
def _registrations():
    """Removes the components that a test registers."""
    saved = {
        name: (dict(registry._module_dict), dict(registry._origins))
        for name, registry in REGISTRIES.items()
    }
    yield
    for name, registry in REGISTRIES.items():
        for current, before in zip(
            (registry._module_dict, registry._origins), saved[name], strict=True
        ):
            current.clear()
            current.update(before)


@pytest.fixture
def distribution(tmp_path, monkeypatch):
    """Returns a function that installs a fake distribution.

    Its arguments are the name of the distribution, its entry points by group, and the source of
    its module, which is named after it. It returns the name of the module.
    """
    modules = []

    def install(name: str, points: dict[str, dict[str, str]], source: str = "") -> str:
        site: Path = tmp_path / "site"
        module = name.replace("-", "_")
        info = site / f"{module}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = []
        for group, names in points.items():
            lines += [f"[afmlib.{group}]", *(f"{key} = {value}" for key, value in names.items())]
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
        (site / f"{module}.py").write_text(source)
        if str(site) not in sys.path:
            monkeypatch.syspath_prepend(site)
        importlib.invalidate_caches()
        modules.append(module)
        return module

    yield install
    for module in modules:
        sys.modules.pop(module, None)
