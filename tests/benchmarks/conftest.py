"""The scripts of benchmarks/ as modules."""

import importlib
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "benchmarks"
PACKAGES = {"suites", "templates", "plots", "report", "contenders", "machine"}
MODULES = (
    "claim",
    "drawing",
    "evidence",
    "judging",
    "markdown",
    "noises",
    "paper_small",
    "report",
    "rules",
)


def _is_ours(name):
    return name.split(".")[0] in PACKAGES


@pytest.fixture(scope="module")
def suites():
    """The package; its modules are attributes, by their names."""
    before = {name: sys.modules.pop(name) for name in list(sys.modules) if _is_ours(name)}
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPTS))
        package = importlib.import_module("suites")
        for name in MODULES:
            importlib.import_module(f"suites.{name}")
        yield package
    for name in [name for name in sys.modules if _is_ours(name)]:
        del sys.modules[name]
    sys.modules |= before
