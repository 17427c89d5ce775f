"""Tests for the study of a GPU: what it does without one, and its page."""

import json

from benchmarks.studies import gpu


def test_page_names_the_parts_that_were_not_run():
    draws = {"date": "2026-01-01", "machine": {"device": "a GPU"}, "rows": [{"size": "b2"}]}

    text = gpu.page_text({"draws": draws})

    (line,) = [line for line in text.splitlines() if line.startswith("**Not run:**")]
    assert all((f"`{name}`" in line) == (name != "draws") for name in gpu.parts())
    assert "## draws" in text
    assert gpu.DEFAULT_PAGE.read_text(encoding="utf-8").startswith("# On a GPU")


def test_finished_parts_are_kept_and_failed_ones_repeated(tmp_path, monkeypatch, capsys):
    machine = {"device": "a GPU"}
    done = {"part": "draws", "date": "2026-01-01", "machine": machine, "rows": [{"size": "b2"}]}
    failed = {"part": "tests", "date": "2026-01-01", "machine": machine, "error": "Out of luck."}
    for outcome in (done, failed):
        (tmp_path / f"{outcome['part']}.json").write_text(json.dumps(outcome))
    ran = []

    class Done:
        returncode, stderr = 1, "Again."

    monkeypatch.setattr(gpu.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu, "describe_machine", lambda: machine)
    monkeypatch.setattr(gpu.subprocess, "run", lambda command, **_: ran.append(command) or Done)
    page = tmp_path / "gpu.md"
    argv = ["--out", str(tmp_path), "--page", str(page), "--part", "draws", "--part", "tests"]

    assert gpu.main(argv) == 1

    assert [command[command.index("--part") + 1] for command in ran] == ["tests"]
    assert "| b2 |" in page.read_text()
    assert "failed: Again." in page.read_text()
    capsys.readouterr()
