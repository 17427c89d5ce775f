"""Tests for benchmarks/report.py and what it is made of."""

import io
import itertools
import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console

HOSTILE = "afm:a.b=<script>alert(1)</script>|`*_\"'"
REASON = "ValueError: <b>loss</b> is | nan & `more`"
VOID = {"meta", "img", "wbr", "br", "hr", "input", "link"}

IMAGES = {"reference": "Digits, 9 samples", "num_samples": 360, "metrics": ["A", "B"], "seed": 0}
POINTS = {"reference": "EightGaussians, 9 samples", "num_samples": 2000, "seed": 0}


def evaluation(values, protocol=IMAGES, nfe=1, picture=None):
    entry = {"nfe": nfe, "own": True, "status": "done", "reason": None, "picture": picture}
    speed = {"images_per_second": 5000.0 / nfe, "latency_ms": 3.0 * nfe}
    return entry | {"protocol": protocol | {"nfe": nfe}, "values": values} | speed


def row(contender, seed, *evaluations, status="done", reason=None):
    trained = {"num_images": 64, "updates": 4, "seconds": 61.0 + seed, "images_per_second": 1e3}
    points = [
        {"num_images": n, "seconds": n / 10, "protocol": e["protocol"], "values": e["values"]}
        for n in (32, 64)
        for e in evaluations[:1]
    ]
    return {
        "contender": contender,
        "seed": seed,
        "config": contender.split(":")[0],
        "overrides": contender.split(":")[1:],
        "status": status,
        "reason": reason,
        "objective": "AdversarialFlow",
        "parameters": {"generator": 159000, "discriminator": 151000},
        "trained": trained | {"peak_memory_mib": 512} if evaluations else None,
        "evaluations": list(evaluations),
        "curve": points,
        "log": [{"num_images": n, "generator/loss": 1 / n, "generator/lr": 0.1} for n in (8, 64)],
    }


def results_of(rows, references=()):
    return {
        "schema": 1,
        "command": f"python benchmarks/run.py '{HOSTILE}'",
        "date": "2026-11-25T01:00:00+00:00",
        "machine": {"cpu": "<i>Xeon</i>", "cores": 2, "device": "cpu"},
        "versions": {"afmlib": "0.1.0"},
        "budget": "64 images",
        "seeds": sorted({entry["seed"] for entry in rows}),
        "rows": list(rows),
        "references": list(references),
    }


def images(fd, recall=0.5, diversity=0.8):
    return {"frechet_distance": fd, "recall": recall, "diversity": diversity}


@pytest.fixture
def results():
    """Two contenders with two seeds, one that failed, one not run, and points besides."""
    points = {"wasserstein": 0.1, "map_rmse": 0.2, "transport_cost": 1.7, "optimal_cost": 1.6}
    four = evaluation({}, nfe=4) | {
        "status": "not run",
        "reason": "It has one step.",
        "protocol": {},
    }
    del four["images_per_second"]
    return results_of(
        [
            row("afm", 0, evaluation(images(1.0), picture="pictures/a.png"), four),
            row("afm", 1, evaluation(images(2.0), picture="pictures/none.png")),
            row(HOSTILE, 0, evaluation(images(3.0, 0.6), picture="../outside.png")),
            row(HOSTILE, 1, evaluation(images(3.5, 0.7))),
            row("broken", 0, status="failed", reason=REASON),
            row("xl", 0, status="not run", reason="There are no data."),
            row("points", 0, evaluation(points, POINTS)),
        ],
        [
            {"name": "real test split", "data": "Digits", "protocol": IMAGES, "picture": None}
            | {"values": images(0.5, 0.9, 1.0)},
            {"name": "class means", "data": "Digits", "protocol": IMAGES, "picture": None}
            | {"values": images(0.9, 0.0, 0.0)},
        ],
    )


@pytest.fixture
def folder(tmp_path, results):
    out = tmp_path / "out"
    (out / "pictures").mkdir(parents=True)
    for path in (out / "pictures" / "a.png", tmp_path / "outside.png"):
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)
    (out / "results.json").write_text(json.dumps(results))
    return out


@pytest.fixture
def html(benchmarks, results, folder):
    return benchmarks["page"].render_page(results, folder)


def print_to(benchmarks, results, width):
    stream = io.StringIO()
    benchmarks["report"].print_table(results, Console(file=stream, width=width))
    return stream.getvalue()


class Page(HTMLParser):
    """Checks that tags are balanced, and collects them and the text."""

    def __init__(self, text):
        super().__init__()
        self.stack, self.tags, self.words = [], [], []
        self.feed(text)
        self.close()
        assert not self.stack

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if not {"script", "style"} & set(self.stack):
            self.words.append(data)

    @property
    def text(self):
        return "".join(self.words)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def bold(table):
    """Returns the first head of the lines whose number in each column is the best."""
    return {
        column.label: [line.heads[0] for line in table.lines if line.cells and line.cells[i].best]
        for i, column in enumerate(table.columns)
    }


@given(st.lists(st.floats(-1e6, 1e6).map(lambda x: round(x, 2)), min_size=2, max_size=5))
def test_mean_and_spread_are_those_of_numpy(benchmarks, values):
    cell = benchmarks["metrics"].summarize(values, decimals=2)

    mean, spread = cell.text.replace(",", "").split(" ± ")
    assert cell.value == pytest.approx(np.mean(values), rel=1e-9, abs=1e-9)
    assert float(mean) == pytest.approx(np.mean(values), abs=0.0051)
    deviation = np.std(values, ddof=1)
    if spread.startswith("<"):
        assert 0 < deviation < float(spread[1:])
    else:
        assert float(spread) == pytest.approx(deviation, rel=0.05, abs=0.0051)


@given(st.floats(1e-9, 1e9))
def test_a_number_is_written_to_two_digits_or_more(benchmarks, value):
    written = benchmarks["metrics"].write_number(value)

    assert float(written.replace(",", "")) == pytest.approx(value, rel=0.051)


def test_what_is_not_finite_is_said_and_left_out(benchmarks):
    summarize = benchmarks["metrics"].summarize

    assert summarize([1.0, math.nan]).text == "1.00 (n = 1, others not finite)"
    assert summarize([math.inf]).text == "not finite"
    assert summarize([None]).text == "–"


def test_one_seed_says_that_it_has_no_spread(benchmarks):
    (table,) = benchmarks["tables"].quality_tables(results_of([row("a", 0, evaluation(images(1)))]))

    assert table.lines[0].heads == ("a", "1 (own)", "one seed, no spread")
    assert "±" not in "".join(cell.text for cell in table.lines[0].cells)
    assert not any(cell.best for cell in table.lines[0].cells)  # The only one of its table.


def test_seeds_that_are_missing_are_counted(benchmarks):
    rows = [row("a", seed, evaluation(images(seed + 1.0))) for seed in range(2)]
    rows.append(row("a", 2, status="failed", reason=REASON))
    (table,) = benchmarks["tables"].quality_tables(results_of(rows))

    assert [line.heads for line in table.lines] == [("a", "1 (own)", "n = 2 of 3")]


def test_a_checkpoint_has_no_seeds(benchmarks):
    given = row(
        "a=runs/mine", 0, evaluation(images(1)), evaluation({}, nfe=2) | dict(status="failed")
    )
    results = results_of([row("a", seed, evaluation(images(1))) for seed in range(3)])
    results["rows"].append(given | {"checkpoint": "runs/mine"})
    (table,) = benchmarks["tables"].quality_tables(results)
    (seeds,) = benchmarks["tables"].seed_tables(results)

    assert [line.heads[2] for line in table.lines] == ["n = 3", "a checkpoint, no spread", "failed"]
    assert [line.heads[2] for line in seeds.lines] == ["0", "1", "2", "–"]
    (failed,) = benchmarks["records"].failures(results)
    assert failed[1] == "nfe 2, a checkpoint"


def test_each_time_that_it_was_resumed_is_told(benchmarks, results, folder):
    assert "esumed" not in benchmarks["report"].table_text(results)
    time = {key: results[key] for key in ("machine", "versions")}
    for day in ("26", "27"):
        again = {"date": f"2026-11-{day}T01:00:00+00:00", "command": f"run.py '{HOSTILE}' --resume"}
        machine = {"cpu": "another <b>cpu</b>"}
        results.setdefault("resumed", []).append(time | again | {"machine": machine})

    html = benchmarks["page"].render_page(results, folder, draw=lambda plot: "")

    for text in (Page(html).text, benchmarks["report"].table_text(results)):
        assert "2026-11-26T01:00:00+00:00" in text
        assert "2026-11-27T01:00:00+00:00" in text
        assert text.count(f"run.py '{HOSTILE}' --resume") == 2
    assert Page(html).text.count("another <b>cpu</b>") == 2
    assert "another &lt;b&gt;cpu" in benchmarks["report"].table_text(results)


@pytest.mark.parametrize(
    ("name", "values", "best"),
    [
        ("frechet_distance", (3.0, 1.0, 2.0), [1]),
        ("recall", (0.1, 0.2, 0.3), [2]),
        ("diversity", (0.7, 0.9, 1.4), [1]),
        ("nearest_training_image", (0.1, 0.32, 0.5), [1]),  # Real data have 0.3.
        ("transport_cost", (0.0, 1.0, 1.7), [2]),  # The optimum is 1.6.
        ("wasserstein", (0.2, 0.10001, 0.10002), [1, 2]),  # The same, once written.
        ("optimal_cost", (1.6, 1.6, 1.6), []),
        ("an_unknown_metric", (1.0, 2.0, 3.0), []),
    ],
)
def test_the_best_in_the_right_direction_is_bold(benchmarks, name, values, best):
    further = {"optimal_cost": 1.6} if name == "transport_cost" else {}
    rows = [row(str(i), 0, evaluation({name: v} | further)) for i, v in enumerate(values)]
    real = {"name": "real test split", "protocol": IMAGES, "values": {name: 0.3}, "picture": None}
    results = results_of(rows, [real])
    (table,) = benchmarks["tables"].quality_tables(results)

    assert bold(table)[table.columns[0].label] == [str(i) for i in best]
    assert not any(cell.best for line in table.references for cell in line.cells)
    text = benchmarks["report"].table_text(results)
    lines = [line for line in text.split("## Speed")[0].splitlines() if "**" in line]
    assert [line.split("|")[1].strip() for line in lines] == [str(i) for i in best]


@given(st.sampled_from(["num_samples", "reference", "metrics", "anything_new"]))
def test_numbers_of_different_protocols_never_share_a_table(benchmarks, key):
    quality_tables = benchmarks["tables"].quality_tables
    first = row("a", 0, evaluation(images(1.0), nfe=1))
    same = row("b", 0, evaluation(images(2.0), IMAGES | {"seed": 7}, nfe=50))
    other = row("b", 0, evaluation(images(2.0), IMAGES | {key: "other"}))

    assert len(quality_tables(results_of([first, same]))) == 1
    tables = quality_tables(results_of([first, other]))
    assert [[line.heads[0] for line in table.lines] for table in tables] == [["a"], ["b"]]
    assert tables[0].about != tables[1].about


def test_the_page_needs_nothing_else(benchmarks, results, folder):
    html = benchmarks["report"].write_report(results, folder).read_text()
    page = Page(html)

    assert not page.all("link")
    assert not re.search(r"https?:|url\((?!#)|@import", html)
    assert all(re.match("#|data:", a.get(k, "#")) for _, a in page.tags for k in ("href", "src"))
    assert [set(script) for script in page.all("script")] == [set()]
    assert [picture["src"][:22] for picture in page.all("img")] == ["data:image/png;base64,"]
    assert all(picture["alt"] for picture in page.all("img"))
    assert "picture missing: pictures/none.png" in page.text
    assert "picture missing: ../outside.png" in page.text  # Nothing from outside the folder.
    assert html == benchmarks["page"].render_page(json.loads(json.dumps(results)), folder)


def test_the_page_is_for_everyone(html):
    page = Page(html)

    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    used = {a["href"][1:] for a in page.all("use")} | {
        a["aria-labeledby"] for a in page.all("section")
    }
    assert used <= set(ids)
    assert all(head["scope"] in {"col", "row", "rowgroup"} for head in page.all("th"))
    drawings = [a for _, a in page.tags if a.get("role") == "img"]
    assert len(drawings) == len(page.all("svg")) == 2 * 3 + 2 * 3 + 1
    assert any("afm ends at 1.50" in drawing["aria-label"] for drawing in drawings)


def test_whatever_is_in_the_results_is_text(benchmarks, results, html):
    markdown = benchmarks["report"].table_text(results)

    for raw in ("<script>alert", "<b>loss", "<i>Xeon"):
        assert raw not in html
        assert raw not in re.sub(r"(`+).*?\1", "", markdown)  # A code span shows it as it is.
    assert HOSTILE in Page(html).text
    blocks = re.findall(r"(?:^\|.*\n)+", markdown, flags=re.MULTILINE)
    for block in blocks:  # Whatever is in a name, each line has as many cells as its head.
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1
    assert len(blocks) == 5


def test_every_reason_is_shown(benchmarks, results, html):
    page = Page(html).text
    markdown = re.sub(r"\\(.)", r"\1", benchmarks["report"].table_text(results))
    markdown = markdown.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")

    for text in (page, markdown, print_to(benchmarks, results, 200)):
        for reason in (f"failed: {REASON}", "not run: There are no data.", "It has one step."):
            assert reason in text
    assert page.count(REASON) == 2  # In the table of what is compared, and in that of failures.


@pytest.mark.parametrize("width", [60, 100, 300])
def test_a_terminal_of_any_width_shows_every_number(benchmarks, results, width):
    printed = print_to(benchmarks, results, width)

    tables = benchmarks["tables"].quality_tables(results)
    for line in itertools.chain(*(table.lines for table in tables)):
        assert all(cell.text in printed for cell in line.cells)


def test_what_was_not_measured_is_listed_with_its_reason(benchmarks, results):
    failed = {"contender": HOSTILE, "status": "failed", "reason": REASON}
    efficiency = [{"contender": "afm", "status": "done", "reason": None}, failed]
    found = benchmarks["records"].failures(results | {"efficiency": efficiency})

    assert found[:-1] == benchmarks["records"].failures(results)
    assert found[-1][1:] == ("efficiency", f"failed: {REASON}")


def test_real_data_are_called_the_floor_with_their_number(benchmarks, results, html):
    name = "real test split (the floor, N = 360)"

    assert name in benchmarks["report"].table_text(results)
    assert Page(html).text.count(name) == 2  # In the table, and with its pictures.
    assert "the floor: held-out real data, N = 360" in Page(html).text


def test_each_number_of_evaluations_has_its_line_and_its_grid(benchmarks, tmp_path):
    entries = [evaluation(images(5.0 - n), nfe=n) | {"own": n == 50} for n in (1, 2, 4, 50)]
    results = results_of([row("a", 0, *entries), row("b", 0, *entries[:2])])
    (table,) = benchmarks["tables"].quality_tables(results)
    text = Page(benchmarks["page"].render_page(results, tmp_path)).text

    assert [line.heads[:2] for line in table.lines] == [
        *(("a", nfe) for nfe in ("1", "2", "4", "50 (own)")),
        *(("b", nfe) for nfe in ("1", "2")),
    ]
    for nfe in ("1 network evaluation", "2 network evaluations", "50 network evaluations"):
        assert nfe in text


def places(svg):
    """Returns where the marks of a plot are, from left to right, in points of the picture."""
    return [float(x) for x in re.findall(r'<use [^>]*?x="([\d.]+)"', svg)]


def test_curves_against_operations_are_those_against_images_but_for_a_factor(benchmarks, results):
    counted = [
        {"contender": "afm", "status": "done", "flops": {"per_image": 1e9}},
        {"contender": "xl", "status": "not run", "flops": None},
    ]
    alone = results_of(results["rows"][:2]) | {"efficiency": counted}
    ((_, axes),) = benchmarks["plots"].quality_plots(alone)

    assert list(axes) == ["images", "seconds", "FLOPs"]
    assert [plot.title for plot in axes["FLOPs"]] == [plot.title for plot in axes["images"]]
    assert "against FLOPs of training: afm ends at 1.50" in axes["FLOPs"][0].words
    assert "60G" in axes["FLOPs"][0].draw()  # 64 images.
    assert places(axes["images"][0].draw()) == places(axes["FLOPs"][0].draw()) != []


def test_who_was_not_counted_has_no_curve_against_operations(benchmarks, results):
    counted = [{"contender": "afm", "status": "done", "flops": {"per_image": 1e9}}]
    rows = [*results["rows"][:1], results["rows"][2]]
    ((_, axes),) = benchmarks["plots"].quality_plots(results_of(rows) | {"efficiency": counted})

    assert HOSTILE in axes["images"][0].words
    assert HOSTILE not in axes["FLOPs"][0].words
    ((_, axes),) = benchmarks["plots"].quality_plots(results_of(rows))
    assert list(axes) == ["images", "seconds"]


def test_points_have_their_own_columns(benchmarks, results):
    tables = benchmarks["tables"].quality_tables(results)
    (table,) = (table for table in tables if table.title.startswith("EightGaussians"))

    heads = ["Wasserstein distance ↓", "map error ↓", "transport cost → optimal", "optimal cost"]
    assert [column.head for column in table.columns] == heads
    assert [line.heads[0] for line in table.lines] == ["points"]


def test_check_sees_a_table_that_was_edited(benchmarks, folder, capsys):
    main = benchmarks["report"].main

    assert main([str(folder), "--check"]) == 1  # There is none yet.
    assert not (folder / "table.md").exists()
    assert main([str(folder)]) == 0
    assert main([str(folder), "--check"]) == 0
    table = folder / "table.md"
    table.write_text(table.read_text().replace("1.50", "1.05"))
    assert main([str(folder), "--check"]) == 1
    assert f"python benchmarks/report.py {folder}" in capsys.readouterr().err


def test_check_sees_a_page_that_was_edited_but_for_its_drawings(benchmarks, folder, capsys):
    main, page = benchmarks["report"].main, folder / "report.html"
    assert main([str(folder)]) == 0
    written = page.read_text()

    page.write_text(re.sub(r"(<svg .*?)<path ", r"\1<path id='mine' ", written, count=1))
    assert page.read_text() != written
    assert main([str(folder), "--check"]) == 0
    page.write_text(written.replace("afm ends at 1.50", "afm ends at 1.05"))
    assert main([str(folder), "--check"]) == 1
    assert "report.html is not what it is made from" in capsys.readouterr().err


def test_both_schemas_are_read(benchmarks, results, folder):
    main, path = benchmarks["report"].main, folder / "results.json"

    path.write_text(json.dumps(results | {"schema": 1}))
    assert main([str(folder)]) == 0
    path.write_text(json.dumps(results | {"schema": 2, "efficiency": []}))
    assert main([str(folder), "--check"]) == 0


@pytest.mark.parametrize("content", [None, "{", "[]", '{"schema": 3}'])
def test_results_that_cannot_be_read_are_an_error_of_usage(benchmarks, tmp_path, capsys, content):
    if content is not None:
        (tmp_path / "results.json").write_text(content)

    assert benchmarks["report"].main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("benchmarks/report.py: ")


def test_an_empty_benchmark_is_a_report(benchmarks, tmp_path):
    page = Page(benchmarks["report"].write_report(results_of([]), tmp_path).read_text())

    assert "There are no numbers." in page.text
    assert "no contenders" in (tmp_path / "table.md").read_text()


def test_contenders_keep_their_color_and_symbol(benchmarks, results, html):
    pairs = set(re.findall(r"(var\(--contender-\d\))\" aria-hidden=\"true\">(.)", html))

    assert len(pairs) == len({row["contender"] for row in results["rows"]})
    symbol = benchmarks["plots"].symbol
    colors = benchmarks["plots"].NUM_COLORS
    assert len({(i % colors, symbol(i)) for i in range(64)}) == 64
