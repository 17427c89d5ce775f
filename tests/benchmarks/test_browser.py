"""The reports in a browser: they need nothing else, sort, show their pictures, and fit any screen.

Deselected by default: it takes a Chromium. Run with ``pytest -m browser``.
"""

import json
import math
import shutil
import statistics
from pathlib import Path

import pytest
from chromium import Chromium

from benchmarks import report

pytestmark = pytest.mark.browser

RESULTS = Path(__file__).parents[2] / "benchmarks/results"
NAMES = ("digits", "paper-small")

EVERYTHING = """
(async () => {
  document.querySelectorAll("details").forEach((fold) => { fold.open = true; });
  const pictures = [...document.images];
  pictures.forEach((picture) => { picture.loading = "eager"; });
  await Promise.all(pictures.map((picture) => picture.decode()));
  return pictures.map((picture) => picture.naturalWidth);
})()
"""
"""Unfolds and loads everything, and returns the widths of the pictures."""

SORTED = """
[...document.querySelectorAll("table")].map((table) => {
  const rows = () => [...table.tBodies[0].rows];
  const read = (column) => rows().map((row) =>
    [row.classList.contains("silent"), row.cells[column]?.dataset.value ?? null]);
  return [...table.tHead.rows[0].cells].map((head, column) => {
    const once = (head.querySelector("button").click(), [head.ariaSort, read(column)]);
    const twice = (head.querySelector("button").click(), [head.ariaSort, read(column)]);
    return [once, twice, table.querySelectorAll("[aria-sort]").length];
  });
})
"""
"""Clicks twice on each head of each table, and returns what its column says each time."""

CONTRAST = """
(() => {
  const light = (color) => {
    const [r, g, b] = color.match(/[\\d.]+/g).slice(0, 3).map((part) => {
      const share = part / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const style = getComputedStyle(document.body);
  const back = light(style.backgroundColor);
  const ratio = (element) => {
    const front = light(getComputedStyle(element).color);
    return (Math.max(front, back) + 0.05) / (Math.min(front, back) + 0.05);
  };
  return [back, ...["h1", "td", ".lead", ".about", "summary", "svg"]
    .map((name) => document.querySelector(name)).filter(Boolean).map(ratio)];
})()
"""
"""Returns how light the page is, and the contrast of what is written on it, as WCAG has it."""


@pytest.fixture(scope="module")
def browser():
    browser = Chromium()
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The reports of the committed results, written afresh; of digits with something not run."""
    pages = {}
    for name in NAMES:
        folder = tmp_path_factory.mktemp("results") / name
        shutil.copytree(RESULTS / name, folder)
        if name == "digits":
            _add_what_was_not_run(folder / "results.json")
        assert report.main([str(folder)]) == 0
        pages[name] = folder / "report.html"
    return pages


def _add_what_was_not_run(path):
    results = json.loads(path.read_text())
    silent = dict(status="not run", reason="There are no data.", trained=None)
    nothing = dict(evaluations=[], curve=[], log=[])
    results["rows"].insert(0, results["rows"][0] | {"contender": "afm_xl2"} | silent | nothing)
    path.write_text(json.dumps(results))


def complaints(browser):
    """Returns what went wrong on a page, and what it asked for outside of its file."""
    browser.evaluate("new Promise((r) => setTimeout(r, 300))")
    found = []
    for event in browser.events:
        method, said = event["method"], event.get("params", {})
        if method == "Runtime.exceptionThrown":
            found.append(said["exceptionDetails"]["text"])
        elif method == "Runtime.consoleAPICalled":
            found.append(said["type"])
        elif method == "Log.entryAdded":
            found.append(said["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            url = said["request"]["url"]
            found += [] if url.startswith(("file:", "data:")) else [url]
    return found


def requests(browser):
    return [e for e in browser.events if e["method"] == "Network.requestWillBeSent"]


@pytest.mark.parametrize("name", NAMES)
def test_no_request_leaves_the_file_and_nothing_is_wrong(browser, pages, name):
    browser.open(pages[name])
    browser.evaluate(EVERYTHING)
    browser.evaluate(SORTED)

    assert complaints(browser) == []
    assert len(requests(browser)) >= 1


def test_a_page_that_does_otherwise_is_seen(browser, tmp_path):
    page = tmp_path / "page.html"
    script = "<script>console.error('oh'); fetch('http://127.0.0.1:9/x'); nobody.knows();</script>"
    page.write_text(f"<!DOCTYPE html><title>x</title>{script}")
    browser.open(page)

    found = complaints(browser)
    assert {"error", "http://127.0.0.1:9/x", "Uncaught"} <= set(found)


@pytest.mark.parametrize("name", NAMES)
def test_every_table_sorts_by_every_column_and_back(browser, pages, name):
    browser.open(pages[name])
    tables = browser.evaluate(SORTED)

    assert len(tables) >= 10
    changed = 0
    for column in (column for table in tables for column in table):
        (up, ascending), (down, descending), marked = column
        assert (up, down, marked) == ("ascending", "descending", 1)
        for rows in (ascending, descending):
            last = [silent or value is None for silent, value in rows]
            assert last == sorted(last)  # What has no number is at the end.
        values, backwards = (
            [value for silent, value in rows if not silent and value is not None]
            for rows in (ascending, descending)
        )
        numbers = [_number(value) for value in values]
        if not any(map(math.isnan, numbers)):
            assert numbers == sorted(numbers)
            assert [_number(value) for value in backwards] == sorted(numbers, reverse=True)
        changed += values != backwards
    assert changed >= 5


def _number(text):
    try:
        return float(text)
    except ValueError:
        return math.nan


def names_of_lines(browser, table):
    read = f"[...document.querySelectorAll('table')[{table}].tBodies[0].rows]"
    return browser.evaluate(f"{read}.map((row) => row.cells[0].dataset.value)")


def mean_distances():
    """Returns the names of digits and their mean distances, as they are written."""
    rows = json.loads((RESULTS / "digits/results.json").read_text())["rows"]
    found = {}
    for row in rows:
        for entry in row["evaluations"]:
            if entry["values"]:
                distances = found.setdefault((row["contender"], entry["nfe"]), [])
                distances.append(entry["values"]["frechet_distance"])
    return [(name, statistics.mean(distances)) for (name, _), distances in found.items()]


def test_a_click_and_a_key_sort_by_the_mean(browser, pages):
    browser.open(pages["digits"])
    means = mean_distances()
    by_distance = [name for name, _ in sorted(means, key=lambda line: line[1])]
    best_first = [*by_distance, "afm_xl2"]
    assert names_of_lines(browser, 1) == ["afm_xl2", *(name for name, _ in means)]

    table = "document.querySelectorAll('table')[1]"  # After the answer.
    head = f"{table}.querySelector('thead th:nth-child(4) button')"
    assert browser.evaluate(f"{head}.textContent").startswith("Fréchet distance")
    box = browser.evaluate(
        f"({head}.scrollIntoView({{block: 'center'}}), {head}.getBoundingClientRect().toJSON())"
    )
    browser.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert names_of_lines(browser, 1) == best_first  # What was not run is at the end.

    browser.press("Enter")
    assert names_of_lines(browser, 1) == [*best_first[-2::-1], "afm_xl2"]
    browser.press(" ")
    assert names_of_lines(browser, 1) == best_first
    references = f"{table}.querySelector('tbody.references').textContent"
    assert "real test split (the floor, N = 360)" in browser.evaluate(references)


@pytest.mark.parametrize("name", NAMES)
def test_every_picture_shows(browser, pages, name):
    browser.open(pages[name])
    widths = browser.evaluate(EVERYTHING)

    assert len(widths) == len(list((RESULTS / name / "pictures").glob("*.png")))
    assert min(widths) > 0
    assert browser.evaluate(
        "[...document.querySelectorAll('svg, .grids img')].every((x) => x.clientWidth > 50)"
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", [320, 390])
def test_a_phone_scrolls_in_one_direction(browser, pages, name, width):
    browser.open(pages[name], width=width, height=844)
    browser.evaluate(EVERYTHING)

    wide, screen = browser.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert wide <= screen == width


@pytest.mark.parametrize("name", NAMES)
def test_light_dark_and_print_can_be_read(browser, pages, name):
    lightness = {}
    for media, scheme in (("screen", "light"), ("screen", "dark"), ("print", "dark")):
        browser.open(pages[name], media=media, scheme=scheme)
        lightness[media, scheme], *contrasts = browser.evaluate(CONTRAST)
        assert min(contrasts) >= 4.5, (media, scheme)

    assert lightness["screen", "dark"] < 0.05
    assert lightness["screen", "light"] > 0.9
    assert lightness["print", "dark"] > 0.9
    assert browser.pdf().startswith(b"%PDF")
