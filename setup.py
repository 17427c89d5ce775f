"""Puts the benchmarks and plugins of the clone into the wheel. pyproject.toml has all else."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
LEFT_OUT = shutil.ignore_patterns("results", "runs", "tests", "build", "*.egg-info", "__pycache__")


class BuildWithBenchmarks(build_py):
    """Also copies ``benchmarks`` and ``plugins`` to ``afmlib``.

    An editable install has them beside ``afmlib``. A mapping in ``package-dir`` would turn that
    install into an import hook.
    """

    def run(self) -> None:
        """Builds the package."""
        super().run()
        if not self.editable_mode:
            for folder in ("benchmarks", "plugins"):
                target = Path(self.build_lib, "afmlib", folder)
                shutil.rmtree(target, ignore_errors=True)
                shutil.copytree(ROOT / folder, target, ignore=LEFT_OUT)


setup(cmdclass={"build_py": BuildWithBenchmarks})
