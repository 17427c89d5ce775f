"""Tests for afmlib.engine.opencv."""

import subprocess
import sys

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
