"""Hooks of mkdocs: the API pages, files outside ``docs``, math without scripts, the outputs of the
tutorials, and ``llms.txt``.

The pages stay readable on a code host. There, links leave ``docs`` by ``../``. Here, the linked
files are copied to ``source/``.
"""

import functools
import html
import json
import os
import posixpath
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import griffe
from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

sys.path.insert(0, str(Path(__file__).parent))
from run_tutorial import BLOCK

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(\]\()((?:\.\./)+[^)#\s]+)")
OUTSIDE = re.compile(r"\[([^\]]*)\]\((?:\.\./)+[^)\s]+\)")
MATH = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)

API = {
    "interfaces": "What a component implements",
    "engine": "Training",
    "objectives": "Objectives",
    "losses": "Losses and penalties",
    "networks": "Networks",
    "data": "Datasets",
    "metrics": "Metrics and feature extractors",
    "testing": "The conformance checks",
}


def _target(page: str, link: str) -> Path | None:
    """Returns the file outside ``docs`` that a link of a page names."""
    path = Path(posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), link)))
    return None if path.parts[0] == "docs" else path


def on_files(files: Any, config: Any) -> Any:
    """Adds the API pages and the linked files outside ``docs``."""
    pages = [file for file in files if file.src_uri.endswith(".md")]
    for page in pages:
        for _, link in LINK.findall(Path(page.abs_src_path).read_text(encoding="utf-8")):
            path = _target(page.src_uri, link)
            if path and (ROOT / path).is_file() and f"source/{path}" not in files.src_uris:
                files.append(
                    File.generated(config, f"source/{path}", abs_src_path=str(ROOT / path))
                )
    stubs = (ROOT / "afmlib/__init__.pyi").read_text(encoding="utf-8")
    names = re.findall(r"^from (\S+) import (\w+)", stubs, re.MULTILINE)
    blocks = {"functions": ["# Functions of afmlib\n", *(f"::: {m}.{n}\n" for m, n in names)]}
    for package, title in API.items():
        modules = sorted((ROOT / "afmlib" / package).glob("[a-z]*.py"))
        blocks[package] = [f"# {title}\n"]
        blocks[package] += [f"::: afmlib.{package}.{module.stem}\n" for module in modules]
    for name, lines in blocks.items():
        files.append(File.generated(config, f"api/{name}.md", content="\n".join(lines)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Points links out of ``docs`` to the copies. Folders have none, and lose their link."""
    source = page.file.src_uri
    if source == "reports.md":
        page.meta["hide"] = ["navigation", "toc"]  # Reports need the width.
    if source.startswith("tutorials/"):
        markdown = with_outputs(page.file.abs_src_path, markdown)

    def point(match: re.Match[str]) -> str:
        path = _target(source, match[2])
        if path is None or f"source/{path}" not in files.src_uris:
            return match[0]
        return match[1] + posixpath.relpath(f"source/{path}", posixpath.dirname(source) or ".")

    def unlink(match: re.Match[str]) -> str:
        link = match[0].rpartition("(")[2].rstrip(")").partition("#")[0]
        return match[1] if _target(source, link) else match[0]

    if source.startswith("source/"):  # Its links are those of its own folder.
        return re.sub(r"(?<!!)\[([^\]]*)\]\((?!\w+://)[^)]*\)", r"\1", markdown)
    return OUTSIDE.sub(unlink, LINK.sub(point, markdown))


@functools.cache  # ``mkdocs serve`` builds a page again when another one changes.
def with_outputs(path: str, markdown: str) -> str:
    """Runs the blocks of a tutorial, and shows below each what it prints and draws."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, str(ROOT / "docs/run_tutorial.py"), path],
            cwd=folder,
            env={"PYTHONPATH": str(ROOT), **os.environ, "COLUMNS": "80"},
            capture_output=True,
            text=True,
        )
    if done.returncode:
        raise PluginError(f"{path} cannot be run:\n{done.stderr}")
    outputs = iter(json.loads(done.stdout))

    def show(match: re.Match[str]) -> str:
        text, pictures = next(outputs)
        parts = [match[0]]
        if text:
            parts.append(f'<div class="output"><pre><code>{html.escape(text)}</code></pre></div>')
        parts += [
            f'<img class="output" alt="Output" src="data:image/png;base64,{picture}">'
            for picture in pictures
        ]
        return "\n\n".join(parts)

    return BLOCK.sub(show, markdown)


def on_page_content(text: str, page: Any, config: Any, files: Any) -> str:
    """Turns formulas into MathML, and shows linked reports in the page of reports."""

    def formula(match: re.Match[str]) -> str:
        display = "block" if match[1] == "div" else "inline"
        mathml = convert(html.unescape(match[2]).strip(), display=display)
        return f'<div class="formula">{mathml}</div>' if display == "block" else str(mathml)

    text = MATH.sub(formula, text)
    if page.file.src_uri == "reports.md":
        frame = r'\g<0><iframe src="\1" title="\2" loading="lazy"></iframe>'
        text = re.sub(r'<a href="([^"]+report\.html)">(.*?)</a>', frame, text)
    return text


def on_post_build(config: Any) -> None:
    """Writes ``llms.txt``: the pages in their order, as Markdown beside the site."""
    lines = [f"# {config.site_name}", "", f"> {config.site_description}", ""]
    for page in re.findall(r"[\w/-]+\.md", str(config.nav)):
        source = ROOT / "docs" / page
        if source.exists():
            text = source.read_text(encoding="utf-8")
            title = text.partition("# ")[2].partition("\n")[0]
            target = Path(config.site_dir, page)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
            lines.append(f"- [{title}]({page})")
    Path(config.site_dir, "llms.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


class PlainDocstrings(griffe.Extension):
    """Turns the roles and formulas of docstrings into Markdown."""

    def on_object(self, *, obj: Any, **kwargs: Any) -> None:
        """Changes the docstring of an object."""
        del kwargs
        if obj.docstring:
            obj.docstring.value = to_markdown(obj.docstring.value)


def to_markdown(text: str) -> str:
    """Returns a docstring with Markdown for the roles and directives of Sphinx."""
    text = re.sub(r":math:`(.+?)`", r"\\(\1\\)", text, flags=re.DOTALL)
    text = re.sub(r":\w+:`~?(?:[\w.]+\.)?(\w+)`", r"`\1`", text)
    text = re.sub(r"^( *)\| (?=\S)", r"\1", text, flags=re.MULTILINE)
    text = re.sub(r"(?<![<(\"'`])(https?://[^\s`>)]+)", r"<\1>", text)
    text = re.sub(r"^( *)Example:$", r"\1Examples:", text, flags=re.MULTILINE)
    return re.sub(
        r"^( *)\.\. math::(.*\n(?:\1 +.*\n|\s*\n(?=\1 ))*)",
        _display,
        text + "\n",
        flags=re.MULTILINE,
    )


def _display(match: re.Match[str]) -> str:
    formula = " ".join(match[2].split())
    if "&" in formula or r"\\" in formula:
        formula = rf"\begin{{aligned}} {formula} \end{{aligned}}"
    return f"\n{match[1]}$$ {formula} $$\n\n"
