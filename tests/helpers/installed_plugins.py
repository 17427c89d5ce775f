"""Installs the distributions of plugins/ by pip into a folder and runs Python with them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

PLUGINS = Path(__file__).parents[2] / "plugins"


def install(folder, *names):
    """Installs plugins without a network, and returns the variables that put them on the path."""
    leave_out = shutil.ignore_patterns("build", "*.egg-info", "__pycache__")
    sources = [
        shutil.copytree(PLUGINS / name, folder / "sources" / name, ignore=leave_out)
        for name in names
    ]
    site = folder / "site"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    command += ["--no-build-isolation", "--disable-pip-version-check", "--target", site, *sources]
    subprocess.run(command, check=True)
    path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def run(environment, *arguments, folder=None):
    """Runs Python with the installed plugins."""
    return subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, cwd=folder
    )


def run_own_tests(environment, name, folder):
    """Runs the tests of a plugin on its installed version and returns the process."""
    tests = shutil.copytree(PLUGINS / name / "tests", folder / "tests")
    return run(environment, "-m", "pytest", "-q", "-p", "no:cacheprovider", tests, folder=folder)


def example(name):
    """Returns the Python that the README of a plugin shows."""
    readme = (PLUGINS / name / "README.md").read_text()
    return readme.partition("```python\n")[2].partition("```")[0]
