"""A folder that another process writes to is an error of every command that writes there."""

import os

import pytest

from afmlib.cli import main
from afmlib.io.lock import only_writer
from benchmarks import run


@pytest.mark.parametrize(
    ("program", "line"),
    [
        (main, "train afm_digits --work-dir W --resume"),
        (main, "evaluate --checkpoint X --work-dir W --resume"),
        (main, "encode --images X --out W --resume"),
        (run.main, "afm_digits --out W --resume"),
        (run.main, "--suite paper-small --out W --resume"),
    ],
)
def test_folder_in_use(tmp_path, monkeypatch, capsys, program, line):
    monkeypatch.chdir(tmp_path)
    with only_writer("W"):
        assert program(line.split()) == 2

    assert f"W is in use by process {os.getpid()} on" in capsys.readouterr().err
