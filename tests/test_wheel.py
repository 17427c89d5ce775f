"""The wheel works from an empty folder, without the clone."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import afmlib

ROOT = Path(__file__).parents[1]
SOURCES = ("afmlib", "benchmarks", "plugins")
FILES = ("pyproject.toml", "setup.py", "README.md", "LICENSE")
LEFT_OUT = shutil.ignore_patterns("results", "runs", "__pycache__", "*.egg-info", "build")
MAX_BYTES = 12_000_000

USE = """
from pathlib import Path
import afmlib
from afmlib import build_dataset, load_config
from afmlib.cli import main
from afmlib.registry import component_registry

assert Path(afmlib.__file__).is_relative_to({site!r})
assert main(["sample", "--checkpoint", "afm_digits", "--labels", "three", "--out", "x.png"]) == 0
assert len(build_dataset(load_config("afm_emoji")["data"])) == 1434
try:
    afmlib.build_generator("R3GANGenerator")
except LookupError as error:
    folder = str(error).rpartition("pip install ")[2]
    assert (Path(folder) / "pyproject.toml").exists(), error
from afmlib.benchmarks.suites import load_suite
assert load_suite("paper-small").claims
try:
    main(["bench", "--help"])
except SystemExit as done:
    assert done.code == 0
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The content of the wheel."""
    source, site = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    for name in SOURCES:
        shutil.copytree(ROOT / name, source / name, ignore=LEFT_OUT)
    for name in FILES:
        shutil.copy(ROOT / name, source)
    build = "from setuptools.build_meta import build_wheel as build; print(build('dist'))"
    command = [sys.executable, "-W", "ignore", "-c", build]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    (wheel,) = (source / "dist").glob("*.whl")
    assert wheel.name == f"afmlib-{afmlib.__version__}-py3-none-any.whl"
    assert wheel.stat().st_size < MAX_BYTES
    zipfile.ZipFile(wheel).extractall(site)
    return site


def test_content(site):
    names = {str(path.relative_to(site / "afmlib")) for path in (site / "afmlib").rglob("*")}

    assert {"py.typed", "__init__.pyi", "configs/afm_digits.yaml"} <= names
    assert {"zoo/afm_mnist/model.safetensors", "benchmarks/data/emoji32.npz"} <= names
    assert {"benchmarks/reporting/page.css", "benchmarks/literature.json"} <= names
    assert not any("results/" in name or "/tests" in name for name in names)
    assert [path.name for path in site.iterdir() if not path.name.endswith(".dist-info")] == [
        "afmlib"
    ]


def test_commands_in_an_empty_folder(site, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, "-c", USE.format(site=str(site))]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert "usage: afmlib bench" in done.stdout
    assert "--resume" in done.stdout


def test_dependencies_are_documented():
    text, page = (ROOT / path for path in ("pyproject.toml", "docs/dependencies.md"))
    core, extras = re.search(
        r"^dependencies = \[\n(.*?)^\].*?^\[project\.optional-dependencies\]\n(.*?)^\[",
        text.read_text(),
        re.MULTILINE | re.DOTALL,
    ).groups()
    names = re.findall(r'^    "([\w-]+)', core, re.MULTILINE)
    names += re.findall(r"^(\w+) = ", extras, re.MULTILINE)

    assert len(names) > 25
    for name in names:
        assert f"`{name}`" in page.read_text(), name
