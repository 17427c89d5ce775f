"""The scripts of benchmarks/ as modules."""

import contextlib
import importlib
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "benchmarks"
PACKAGES = {"efficiency", "suites", "templates", "plots", "report", "contenders", "machine"}
MEASURING = ("contender", "counting", "gauge", "memory", "program", "subject", "training")
TEMPLATES = ("cost", "literature", "marks", "metrics", "page", "records", "schema", "tables")
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
def benchmarks():
    """The modules of the report, by the last part of their names."""
    names = ("report", "plots", *(f"templates.{name}" for name in TEMPLATES))
    with _scripts() as load:
        yield {name.split(".")[-1]: load(name) for name in names}


@pytest.fixture(scope="module")
def suites():
    """The package; its modules are attributes, by their names."""
    with _scripts() as load:
        for name in MODULES:
            load(f"suites.{name}")
        yield load("suites")


@pytest.fixture(scope="module")
def efficiency():
    """The modules of the package, by their names."""
    with _scripts() as load:
        yield {name: load(f"efficiency.{name}") for name in MEASURING}


@contextlib.contextmanager
def _scripts():
    """Imports what is in benchmarks/ afresh, and puts back what was there."""
    before = {name: sys.modules.pop(name) for name in list(sys.modules) if _is_ours(name)}
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPTS))
        yield importlib.import_module
    for name in [name for name in sys.modules if _is_ours(name)]:
        del sys.modules[name]
    sys.modules |= before
