"""Tests for the types that a user's type checker sees."""

import re
import subprocess
import sys
from pathlib import Path

import afmlib

ROOT = Path(afmlib.__file__).parent
SCRIPT = """
from afmlib import build_classifier, build_dataset, build_discriminator, build_generator
from afmlib import build_loss, build_objective, build_penalty, load_checkpoint, load_config
from afmlib import list_components

reveal_type(build_generator("dit_s_2", depth=2))
reveal_type(build_discriminator("dit_s_2"))
reveal_type(build_classifier("dit_s_2"))
reveal_type(build_loss("HingeLoss"))
reveal_type(build_penalty("AutogradPenalty"))
reveal_type(build_objective("FlowMatching"))
reveal_type(build_dataset("Digits"))
reveal_type(load_checkpoint("run"))
reveal_type(load_config("afm_digits"))
reveal_type(list_components("losses"))
build_dataset("Digits").num_clases
"""
OPTIONS = "-m mypy --no-error-summary --config-file mypy.ini --cache-dir"
TYPES = """Generator Discriminator Classifier AdversarialLoss GradientPenalty Objective Dataset
SampleModel dict dict"""
# Torch itself is not followed, which would take most of the time.
CONFIG = """
[mypy]
follow_imports = silent
ignore_missing_imports = true
[mypy-torch.*,numpy.*,mmengine.*,scipy.*,matplotlib.*,fsspec.*]
follow_imports = skip
"""


def test_stub_has_the_public_names():
    names = re.findall(r" as (\w+)|^(\w+):", (ROOT / "__init__.pyi").read_text(), re.MULTILINE)

    assert sorted("".join(pair) for pair in names) == sorted(afmlib.__all__)


def test_types_of_a_user_script(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "mypy.ini").write_text(CONFIG)

    result = subprocess.run(
        [sys.executable, *OPTIONS.split(), str(tmp_path / "cache"), "script.py"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )

    revealed = re.findall(r'Revealed type is "(?:\w+\.)*(\w+)', result.stdout)
    assert revealed == TYPES.split(), result.stdout + result.stderr
    errors = [line for line in result.stdout.splitlines() if " error: " in line]
    assert len(errors) == 1
    assert 'has no attribute "num_clases"' in errors[0]
