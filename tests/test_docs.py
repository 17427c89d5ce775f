"""What README and docs show is executed."""

import re
import shlex
import sys
from pathlib import Path

import pytest

from afmlib.cli import main
from afmlib.cli.main import COMMANDS
from afmlib.registry import REGISTRIES
from benchmarks import run

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHORT = [
    "num_images=64",
    "sample_every=null",
    "checkpoint_every=null",
    "evaluation.extractor=null",
    "evaluation.num_samples=20",
]


def blocks(page):
    return BLOCK.findall(page.read_text())


def names(pages):
    return [page.name for page in pages]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder to run in; its plugins are unregistered afterwards."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", "")).startswith(str(tmp_path)):
            for registry in REGISTRIES.values():
                registry.forget(name)


def test_there_are_pages():
    assert {"components.md", "objectives.md", "configs.md", "plugins.md"} <= set(names(PAGES))


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_snippets_run_in_order(page, here, capsys):
    """Python runs in one namespace; commands run shortened; files are written as shown."""
    namespace = {"__name__": "__main__"}
    for language, text in blocks(page):
        first = text.split("\n", 1)[0]
        named = re.fullmatch(r"(?:#|%%writefile) (\S+\.(?:py|yaml))", first)
        if named:
            (here / named[1]).write_text("#" + text.removeprefix("%%writefile"))
        elif language == "python":
            text = re.sub(r"^num_images = [\d_]+", "num_images = 64", text, flags=re.MULTILINE)
            exec(compile(text, page.name, "exec"), namespace)  # The page is ours.
        elif language == "sh":
            for line in text.replace("\\\n", " ").splitlines():
                run_command(shlex.split(line, comments=True))


def run_command(words):
    if words[:2] in (["python", "benchmarks/run.py"], ["afmlib", "bench"]):
        assert run_benchmark(words[2:]) == 0, words
    elif words[:1] == ["afmlib"]:
        argv = words[1:]
        if argv[0] == "train" and "--print-config" not in argv:
            metric = "NoisedAccuracy" if "classifier" in argv[1] else "Diversity"
            settings = [*SHORT, f"evaluation.metrics=[{metric}]"]
            if "--data" in argv:
                settings += ["data.autoencoder.num_steps=2"]
            argv += [word for setting in settings for word in ("--set", setting)]
        assert main(argv) == 0, words


def run_benchmark(argv):
    num = next(i for i, word in enumerate(argv) if word.startswith("--"))
    settings = [*SHORT[1:], "evaluation.metrics=[Diversity]"]
    contenders = [":".join([name, *settings]) for name in argv[:num]]
    return run.main([*contenders, *argv[num:], "--budget", "32img", "--patience", "0.01"])


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_links(page):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_named_files_exist(page):
    for path in re.findall(r"`((?:afmlib|benchmarks|plugins|tests)/[\w/.-]+)`", page.read_text()):
        assert (ROOT / path).exists(), path


def test_readme_has_the_two_commands():
    text = (ROOT / "README.md").read_text()

    assert (
        "pip install -e .          && "
        "python benchmarks/run.py afm_digits gan_digits flow_matching_digits" in text
    )
    assert "pip install -e '.[test]'  && pytest" in text


def test_every_option_is_documented(capsys):
    page = (ROOT / "docs/commands.md").read_text()
    figures = [f"inspect {name}" for name in ("interpolation", "compare", "transport", "training")]
    for command in (*COMMANDS, *figures):
        with pytest.raises(SystemExit):
            main([*command.split(), "--help"])
        options = set(re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out))
        assert "--help" in options
        for option in options - {"--help"}:
            assert option in page, f"{command} {option}"


def test_every_component_is_documented():
    page = (ROOT / "docs/components.md").read_text()
    for group, registry in REGISTRIES.items():
        assert f"`{group}`" in page
        for name in registry.builtins:
            assert f"`{name}`" in page, name


def test_guarantees_name_tests():
    page = (ROOT / "docs/guarantees.md").read_text()
    files = {str(path): path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}

    names = re.findall(r"`(?:tests/)?([\w/]*?test_\w+\.py)(?:::(\w+))?`", page)
    assert len(names) > 20
    for file, test in names:
        named = [text for path, text in files.items() if path.endswith(f"/{file}")]
        assert any(f"def {test}" in text for text in named), f"{file}::{test}"


def test_readme_numbers_are_results():
    results = (ROOT / "docs/results.md").read_text().replace("**", "")
    table = re.findall(
        r"^\| `(\w+)`.*? \| (.+) \|$", (ROOT / "README.md").read_text(), re.MULTILINE
    )
    for config, cells in table:
        row = re.search(rf"^\| {config}_digits \| 1 .*", results, re.MULTILINE)
        assert all(f"| {number} |" in row[0] for number in cells.split(" | ")), config
    assert len(table) > 10
