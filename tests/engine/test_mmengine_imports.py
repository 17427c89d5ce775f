"""Tests for afmlib.engine.mmengine_imports."""

import subprocess
import sys

import numpy as np
import torch

from afmlib.engine.hooks.log import LazyVisualizer

WITHOUT_LIBGL = """
import sys, importlib.abc

class NoLibGL(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "cv2":
            raise ImportError("libGL.so.1: cannot open shared object file")

sys.meta_path.insert(0, NoLibGL())
"""


def _python(code, tmp_path):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False
    )


def test_mmengine_alone_fails_without_libgl(tmp_path):
    result = _python(WITHOUT_LIBGL + "import mmengine.runner", tmp_path)

    assert "libGL" in result.stderr  # Else the stand-in is no longer needed: remove it.


def test_run_trains_without_libgl(tmp_path):
    code = """
from afmlib.cli import main
status = main(["train", "afm_digits", "--work-dir", "run", "--set", "num_images=32",
               "--set", "evaluation.metrics=[]", "--set", "evaluation.extractor=null"])
import cv2
try:
    cv2.imread("picture.png")
except ImportError as error:
    print("using it says:", error)
sys.exit(status)
"""
    result = _python(WITHOUT_LIBGL + code, tmp_path)

    assert result.returncode == 0, result.stderr
    assert (tmp_path / "run/samples/000000032.png").exists()
    assert "using it says: OpenCV cannot be used here: libGL.so.1" in result.stdout


def test_run_imports_neither_compiler_nor_plots(tmp_path):
    code = """
import sys
from afmlib.cli import main
status = main(["train", "afm_digits", "--work-dir", "run", "--set", "num_images=32",
               "--set", "evaluation.metrics=[]", "--set", "evaluation.extractor=null"])
slow = "torch._dynamo", "torch.distributed.tensor", "sympy", "sklearn", "matplotlib", "pandas"
print("imported:", [name for name in slow if name in sys.modules])
sys.exit(status)
"""
    result = _python(code, tmp_path)

    assert result.returncode == 0, result.stderr
    assert "imported: []" in result.stdout


def test_left_out_class_of_mmengine_says_what_to_do(tmp_path):
    code = "import afmlib.engine; from mmengine.optim import ZeroRedundancyOptimizer as z; z([])"
    early = "import mmengine.runner; " + code.replace("z([])", "print(z.__mro__)")

    assert "import mmengine before afmlib" in _python(code, tmp_path).stderr
    assert "torch.distributed.optim" in _python(early, tmp_path).stdout


def test_visualizer_makes_a_figure_to_draw():
    visualizer = LazyVisualizer(name="drawn")
    visualizer.set_image(np.zeros((8, 8, 3), np.uint8))
    visualizer.draw_bboxes(torch.tensor([1, 1, 5, 5]))

    assert visualizer.get_image().any()
