"""What README and docs show is executed."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from afmlib.cli import main
from afmlib.cli.main import COMMANDS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHORT = [
    *("--set", "num_images=64"),
    *("--set", "sample_every=null"),
    *("--set", "checkpoint_every=null"),
    *("--set", "evaluation.metrics=[Diversity]"),
    *("--set", "evaluation.extractor=null"),
    *("--set", "evaluation.num_samples=20"),
]


def blocks(page):
    return BLOCK.findall(page.read_text())


def names(pages):
    return [page.name for page in pages]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_there_are_pages():
    assert {"components.md", "objectives.md", "configs.md", "plugins.md"} <= set(names(PAGES))


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_the_snippets_of_a_page_run_in_their_order(page, here, capsys):
    """Python runs in one namespace; commands run shortened; files are written as shown."""
    namespace = {"__name__": "__main__"}
    for language, text in blocks(page):
        first = text.split("\n", 1)[0]
        named = re.fullmatch(r"# (\S+\.(?:py|yaml))", first)
        if named:
            (here / named[1]).write_text(text)
        elif language == "python":
            exec(compile(text, page.name, "exec"), namespace)  # The page is ours.
        elif language == "sh":
            for line in text.replace("\\\n", " ").splitlines():
                run_command(line, here)


def run_benchmark(words, here):
    """Runs a benchmark with a tiny budget, in a process of its own as its users do."""
    words[words.index("--budget") + 1] = "32img"
    done = subprocess.run(
        [sys.executable, str(ROOT / words[1]), *words[2:]],
        cwd=here,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr


def run_command(line, here):
    words = shlex.split(line, comments=True)
    if words[:2] == ["python", "benchmarks/run.py"]:
        run_benchmark(words, here)
    if words[:1] != ["afmlib"]:
        return
    argv = words[1:]
    if argv[0] == "train" and "--print-config" not in argv:
        argv += SHORT
    assert main(argv) == 0, line


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_two_commands_of_the_readme_stand_as_they_are_run():
    text = (ROOT / "README.md").read_text()

    assert (
        "pip install -e .          && "
        "python benchmarks/run.py afm_digits gan_digits flow_matching_digits" in text
    )
    assert "pip install -e '.[test]'  && pytest" in text


def test_every_option_of_the_commands_is_on_the_page_of_commands():
    page = (ROOT / "docs/commands.md").read_text()

    pictures = [f"inspect {name}" for name in ("interpolation", "compare", "transport", "training")]
    for command in (*COMMANDS, *pictures):
        result = subprocess.run(
            [sys.executable, "-m", "afmlib", *command.split(), "--help"],
            capture_output=True,
            text=True,
            check=True,
        )
        for option in set(re.findall(r"--[a-z][a-z-]*", result.stdout)) - {"--help"}:
            assert option in page, f"{command} {option}"


def test_the_glossary_names_every_group():
    from afmlib.registry import REGISTRIES

    page = (ROOT / "docs/components.md").read_text()
    for group, registry in REGISTRIES.items():
        assert f"`{group}`" in page
        for name in registry.builtins:
            assert f"`{name}`" in page, name


def test_the_tests_that_hold_the_guarantees_exist():
    page = (ROOT / "docs/guarantees.md").read_text()
    files = {str(path): path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}

    names = re.findall(r"`(?:tests/)?([\w/]*?test_\w+\.py)(?:::(\w+))?`", page)
    assert len(names) > 20
    for file, test in names:
        named = [text for path, text in files.items() if path.endswith(f"/{file}")]
        assert any(f"def {test}" in text for text in named), f"{file}::{test}"


def test_numbers_of_the_readme_are_results():
    results = (ROOT / "docs/results.md").read_text().replace("**", "")
    table = re.findall(
        r"^\| `(\w+)`.*? \| (.+) \|$", (ROOT / "README.md").read_text(), re.MULTILINE
    )
    for config, cells in table:
        *digits, emoji = cells.split(" | ")
        for data, numbers in (("digits", digits), ("emoji", [emoji])):
            row = re.search(rf"^\| {config}_{data} \| 1 .*", results, re.MULTILINE)
            assert numbers == ["–"] or all(f"| {number} |" in row[0] for number in numbers), config
    assert len(table) == 10
