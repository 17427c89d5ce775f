"""Tests for benchmarks/report.py and what it is made of."""

import io
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

from benchmarks import report
from benchmarks.reporting import plots
from benchmarks.reporting.markdown import table_text
from benchmarks.reporting.numbers import describe, head, summarize, write_number
from benchmarks.reporting.page import render_page
from benchmarks.reporting.program import print_table, write_report
from benchmarks.reporting.records import failures
from benchmarks.reporting.tables import quality_tables, seed_tables, speed_tables

HOSTILE = "afm:a.b=<script>alert(1)</script>|`*_\"'"
REASON = "ValueError: <b>loss</b> is | nan & `more`"
VOID = {"meta", "img", "wbr", "br", "hr", "input", "link"}

METRICS = ["FrechetDistance", "PrecisionRecall", "Diversity", "NearestTrainingImage"]
IMAGES = {"reference": "Digits, 9 samples", "num_samples": 360, "metrics": METRICS, "seed": 0}
POINTS = {"reference": "EightGaussians, 9 samples", "num_samples": 2000, "seed": 0}
POINTS |= {"metrics": ["TransportMap"]}


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
        "schema": 2,
        "efficiency": [],
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
def html(results, folder):
    return render_page(results, folder)


def print_to(results, width):
    stream = io.StringIO()
    print_table(results, Console(file=stream, width=width))
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
def test_summarize_matches_numpy(values):
    cell = summarize(values, decimals=2)

    mean, spread = cell.text.replace(",", "").split(" ± ")
    assert cell.value == pytest.approx(np.mean(values), rel=1e-9, abs=1e-9)
    assert float(mean) == pytest.approx(np.mean(values), abs=0.0051)
    deviation = np.std(values, ddof=1)
    if spread.startswith("<"):
        assert 0 < deviation < float(spread[1:])
    else:
        assert float(spread) == pytest.approx(deviation, rel=0.05, abs=0.0051)


@given(st.floats(1e-9, 1e9))
def test_write_number_keeps_two_digits(value):
    written = write_number(value)

    assert float(written.replace(",", "")) == pytest.approx(value, rel=0.051)


def test_summarize_leaves_out_non_finite():
    assert summarize([1.0, math.nan]).text == "1.00 (n = 1, others not finite)"
    assert summarize([math.inf]).text == "not finite"
    assert summarize([None]).text == "–"


def test_one_seed_has_no_spread():
    (table,) = quality_tables(results_of([row("a", 0, evaluation(images(1)))]))

    assert table.lines[0].heads == ("a", "1 (own)", "one seed, no spread")
    assert "±" not in "".join(cell.text for cell in table.lines[0].cells)
    assert not any(cell.best for cell in table.lines[0].cells)  # The only one of its table.


def test_missing_seeds_are_counted():
    rows = [row("a", seed, evaluation(images(seed + 1.0))) for seed in range(2)]
    rows.append(row("a", 2, status="failed", reason=REASON))
    (table,) = quality_tables(results_of(rows))

    assert [line.heads for line in table.lines] == [("a", "1 (own)", "n = 2 of 3")]


def test_checkpoint_has_no_seeds():
    given = row(
        "a=runs/mine", 0, evaluation(images(1)), evaluation({}, nfe=2) | dict(status="failed")
    )
    results = results_of([row("a", seed, evaluation(images(1))) for seed in range(3)])
    results["rows"].append(given | {"checkpoint": "runs/mine"})
    (table,) = quality_tables(results)
    (seeds,) = seed_tables(results)

    assert [line.heads[2] for line in table.lines] == ["n = 3", "a checkpoint, no spread", "failed"]
    assert [line.heads[2] for line in seeds.lines] == ["0", "1", "2", "–"]
    (failed,) = failures(results)
    assert failed[1] == "nfe 2, a checkpoint"


def test_every_resume_is_listed(results, folder):
    assert "esumed" not in table_text(results)
    time = {key: results[key] for key in ("machine", "versions")}
    for day in ("26", "27"):
        again = {"date": f"2026-11-{day}T01:00:00+00:00", "command": f"run.py '{HOSTILE}' --resume"}
        machine = {"cpu": "another <b>cpu</b>"}
        results.setdefault("resumed", []).append(time | again | {"machine": machine})

    html = render_page(results, folder, draw=lambda plot: "")

    for text in (Page(html).text, table_text(results)):
        assert "2026-11-26T01:00:00+00:00" in text
        assert "2026-11-27T01:00:00+00:00" in text
        assert text.count(f"run.py '{HOSTILE}' --resume") == 2
    assert Page(html).text.count("another <b>cpu</b>") == 2
    assert "another &lt;b&gt;cpu" in table_text(results)


def test_judges_in_training_do_not_rank():
    protocol = IMAGES | {"judge_in_training": ["DigitsExtractor"]}
    values = [{"frechet_distance": float(seed)} for seed in range(2)]
    rows = [row(str(i), 0, evaluation(found, protocol)) for i, found in enumerate(values)]

    (table,) = quality_tables(results_of(rows))

    assert bold(table)[table.columns[0].label] == []
    assert "the training used DigitsExtractor, so these numbers do not rank" in table.about


@pytest.mark.parametrize(
    ("name", "values", "best"),
    [
        ("frechet_distance", (3.0, 1.0, 2.0), [1]),
        ("recall", (0.1, 0.2, 0.3), [2]),
        ("diversity", (0.7, 0.9, 1.4), [1]),
        ("nearest_training_image", (0.1, 0.32, 0.5), []),
        ("pixel_frechet_distance", (0.2, 0.10001, 0.10002), []),  # Within the spread.
        ("an_unknown_metric", (1.0, 2.0, 3.0), []),
    ],
)
def test_best_is_bold(name, values, best):
    rows = [
        row(str(i), seed, evaluation({name: v + step}))
        for i, v in enumerate(values)
        for seed, step in enumerate((-1e-3, 1e-3))
    ]
    real = {"name": "real test split", "protocol": IMAGES, "values": {name: 0.3}, "picture": None}
    results = results_of(rows, [real])
    (table,) = quality_tables(results)

    assert bold(table)[table.columns[0].label] == [str(i) for i in best]
    assert not any(cell.best for line in table.references for cell in line.cells)
    text = table_text(results)
    lines = [line for line in text.split("## Speed")[0].splitlines() if "**" in line]
    assert [line.split("|")[1].strip() for line in lines] == [str(i) for i in best]


def test_one_seed_and_chance_are_not_bold():
    one = [row(name, 0, evaluation(images(fd))) for name, fd in (("a", 1.0), ("b", 2.0))]
    two = [row(e["contender"], 1, evaluation(e["evaluations"][0]["values"])) for e in one]
    means = {"name": "class means", "protocol": IMAGES, "values": images(0.5), "picture": None}

    for rows, references, best in ((one, [], []), (one + two, [], ["a"]), (one + two, [means], [])):
        (table,) = quality_tables(results_of(rows, references))
        assert bold(table)[table.columns[0].label] == best


def test_contender_that_has_learned_nothing_says_so(tmp_path):
    rows = [row(n, 0, evaluation(images(fd))) for n, fd in (("good", 1.0), ("bad", 9.0))]
    noise = {"name": "untrained network", "protocol": IMAGES, "values": images(8.0)}
    results = results_of(rows, [noise | {"picture": None}])

    text = Page(render_page(results, tmp_path)).text

    assert "bad (nfe 1) has learned nothing" in text
    assert "good (nfe 1) has learned nothing" not in text


@given(st.sampled_from(["num_samples", "reference", "metrics", "anything_new"]))
def test_protocols_do_not_share_a_table(key):
    first = row("a", 0, evaluation(images(1.0), nfe=1))
    same = row("b", 0, evaluation(images(2.0), IMAGES | {"seed": 7}, nfe=50))
    other = row("b", 0, evaluation(images(2.0), IMAGES | {key: "other"}))

    assert len(quality_tables(results_of([first, same]))) == 1
    tables = quality_tables(results_of([first, other]))
    assert [[line.heads[0] for line in table.lines] for table in tables] == [["a"], ["b"]]
    assert tables[0].about != tables[1].about


def test_page_is_self_contained(results, folder):
    html = write_report(results, folder).read_text()
    page = Page(html)

    assert not page.all("link")
    assert not re.search(r"https?:|url\((?!#)|@import", html)
    assert all(re.match("#|data:", a.get(k, "#")) for _, a in page.tags for k in ("href", "src"))
    assert [set(script) for script in page.all("script")] == [set()]
    assert [picture["src"][:22] for picture in page.all("img")] == ["data:image/png;base64,"]
    assert all(picture["alt"] for picture in page.all("img"))
    assert "picture missing: pictures/none.png" in page.text
    assert "picture missing: ../outside.png" in page.text  # Nothing from outside the folder.
    assert html == render_page(json.loads(json.dumps(results)), folder)


def test_page_is_accessible(html):
    page = Page(html)

    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    used = {a["href"][1:] for a in page.all("use")} | {
        a["aria-labeledby"] for a in page.all("section")
    }
    assert used <= set(ids)
    assert all(head["scope"] in {"col", "row", "rowgroup"} for head in page.all("th"))
    drawings = [a for _, a in page.tags if a.get("role") == "img"]
    # Curves of two protocols, losses, and quality against cost.
    assert len(drawings) == len(page.all("svg")) == 2 * 3 + 2 * 2 + 1 + 2
    assert any("afm ends at 1.50" in drawing["aria-label"] for drawing in drawings)


def test_text_of_results_is_escaped(results, html):
    markdown = table_text(results)

    for raw in ("<script>alert", "<b>loss", "<i>Xeon"):
        assert raw not in html
        assert raw not in re.sub(r"(`+).*?\1", "", markdown)  # A code span shows it as it is.
    assert HOSTILE in Page(html).text
    blocks = re.findall(r"(?:^\|.*\n)+", markdown, flags=re.MULTILINE)
    for block in blocks:  # Whatever is in a name, each line has as many cells as its head.
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1
    assert len(blocks) == 4


def test_every_reason_is_shown(results, html):
    page = Page(html).text
    markdown = re.sub(r"\\(.)", r"\1", table_text(results))
    markdown = markdown.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")

    for text in (page, markdown):
        for reason in (f"failed: {REASON}", "not run: There are no data."):
            assert reason in text
        assert "It has one step." not in text  # A limit of the model, not a failure.
    assert page.count(REASON) == 5  # In three tables, and two of their copies in CSV and LaTeX.


def test_terminal_of_80_columns_shows_a_short_table(results):
    printed = print_to(results, 80)

    assert all(len(line) <= 80 for line in printed.splitlines())
    for table in quality_tables(results):
        for line in table.lines:
            assert all(cell.mean in printed for cell in line.cells[:1])
    assert re.findall(r"\d+ parts? .*: see the report\.", printed) == [
        "1 part failed: see the report.",
        "1 part did not run: see the report.",
    ]


def test_failed_measurements_are_listed(results):
    failed = {"contender": HOSTILE, "status": "failed", "reason": REASON}
    efficiency = [{"contender": "afm", "status": "done", "reason": None}, failed]
    found = failures(results | {"efficiency": efficiency})

    assert found[:-1] == failures(results)
    assert found[-1][1:] == ("efficiency", f"failed: {REASON}")


def test_real_data_are_the_floor(results, html):
    name = "real test split (the floor, N = 360)"

    assert name in table_text(results)
    assert Page(html).text.count(name) == 4  # In the table, its CSV and LaTeX, and with pictures.
    assert "the floor: held-out real data, N = 360" in Page(html).text


def test_each_nfe_has_its_line_and_grid(tmp_path):
    entries = [evaluation(images(5.0 - n), nfe=n) | {"own": n == 50} for n in (1, 2, 4, 50)]
    results = results_of([row("a", 0, *entries), row("b", 0, *entries[:2])])
    (table,) = quality_tables(results)
    text = Page(render_page(results, tmp_path)).text

    assert [line.heads[:2] for line in table.lines] == [
        *(("a", nfe) for nfe in ("1", "2", "4", "50 (own)")),
        *(("b", nfe) for nfe in ("1", "2")),
    ]
    for nfe in ("1 network evaluation", "2 network evaluations", "50 network evaluations"):
        assert nfe in text


def places(svg):
    """Returns where the marks of a plot are, from left to right, in points of the picture."""
    return [float(x) for x in re.findall(r'<use [^>]*?x="([\d.]+)"', svg)]


def test_curves_against_flops_are_scaled(results):
    counted = [
        {"contender": "afm", "status": "done", "flops": {"per_image": 1e9}},
        {"contender": "xl", "status": "not run", "flops": None},
    ]
    alone = results_of(results["rows"][:2]) | {"efficiency": counted}
    ((_, axes),) = plots.quality_plots(alone)

    assert list(axes) == ["images", "seconds", "FLOPs"]
    assert [plot.title for plot in axes["FLOPs"]] == [plot.title for plot in axes["images"]]
    assert "against FLOPs of training: afm ends at 1.50" in axes["FLOPs"][0].words
    assert "60G" in axes["FLOPs"][0].draw()  # 64 images.
    assert places(axes["images"][0].draw()) == places(axes["FLOPs"][0].draw()) != []


def test_uncounted_contender_has_no_flops_curve(results):
    counted = [{"contender": "afm", "status": "done", "flops": {"per_image": 1e9}}]
    rows = [*results["rows"][:1], results["rows"][2]]
    ((_, axes),) = plots.quality_plots(results_of(rows) | {"efficiency": counted})

    assert HOSTILE in axes["images"][0].words
    assert HOSTILE not in axes["FLOPs"][0].words
    ((_, axes),) = plots.quality_plots(results_of(rows))
    assert list(axes) == ["images", "seconds"]


def test_points_have_their_own_columns(results):
    tables = quality_tables(results)
    (table,) = (table for table in tables if table.title.startswith("EightGaussians"))

    heads = ["Wasserstein distance ↓", "map error ↓", "transport cost", "optimal cost"]
    assert [head(column) for column in table.columns] == heads
    assert [line.heads[0] for line in table.lines] == ["points"]


def test_check_finds_an_edited_table(folder, capsys):
    main = report.main

    assert main([str(folder), "--check"]) == 1  # There is none yet.
    assert not (folder / "table.md").exists()
    assert main([str(folder)]) == 0
    assert main([str(folder), "--check"]) == 0
    table = folder / "table.md"
    table.write_text(table.read_text().replace("1.50", "1.05"))
    assert main([str(folder), "--check"]) == 1
    assert f"python benchmarks/report.py {folder}" in capsys.readouterr().err


def test_check_finds_an_edited_page(folder, capsys):
    main, page = report.main, folder / "report.html"
    assert main([str(folder)]) == 0
    written = page.read_text()

    page.write_text(re.sub(r"(<svg .*?)<path ", r"\1<path id='mine' ", written, count=1))
    assert page.read_text() != written
    assert main([str(folder), "--check"]) == 0
    page.write_text(written.replace("afm ends at 1.50", "afm ends at 1.05"))
    assert main([str(folder), "--check"]) == 1
    assert "report.html differs from its data" in capsys.readouterr().err


@pytest.mark.parametrize("content", [None, "{", "[]", '{"schema": 1}'])
def test_unreadable_results_are_a_usage_error(tmp_path, capsys, content):
    if content is not None:
        (tmp_path / "results.json").write_text(content)

    assert report.main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("benchmarks/report.py: ")


def test_empty_benchmark_has_a_report(tmp_path):
    page = Page(write_report(results_of([]), tmp_path).read_text())

    assert "There are no numbers." in page.text
    assert "no contenders" in (tmp_path / "table.md").read_text()


def test_contenders_keep_color_and_symbol(results, html):
    pairs = set(re.findall(r"(var\(--contender-\d\))\" aria-hidden=\"true\">(.)", html))

    assert len(pairs) == len({row["contender"] for row in results["rows"]})
    symbol, colors = plots.symbol, plots.NUM_COLORS
    assert len({(i % colors, symbol(i)) for i in range(64)}) == 64


# --- Cost -----------------------------------------------------------------------------------------


def entry_of(contender, measured=True):
    numbers = dict(images_per_second=4.0, batch=8, peak_memory_mib=100.0, share_of_peak=0.25)
    missing = dict.fromkeys(numbers) | dict(reason="not measured: <b>80%</b> of the memory")
    made = numbers | dict(reason=None) if measured else missing
    device = dict(device="cpu", threads=2, dtype="float32", batch=8, matmul_peak_flops=5e10)
    return dict(
        contender=contender,
        status="done",
        reason=None,
        parameters={"generator": 3_000_000, "discriminator": 2_000_000},
        flops=dict(
            forward=2e9,
            sample={"1": 2e9, "2": None, "8": 16e9},
            updates={"generator": 12e9, "discriminator": 17e9},
            per_image=29e9,
            forward_passes=14.5,
        ),
        measured=device
        | dict(
            sample={"8": made | dict(latency_ms=2000.0 if measured else None)},
            update=made | dict(seconds=2.0 if measured else None),
        ),
    )


@pytest.fixture
def costs():
    dead = dict(contender="dead", status="failed", reason="It died.", parameters={})
    later = row("a", 1, status="not run", reason="interrupted") | {"objective": None}
    return results_of([row("a", 0, evaluation(images(1.0))), later]) | dict(
        efficiency=[entry_of("a"), entry_of("b", False), dead | dict(flops=None, measured=None)]
    )


def line_of(table, contender):
    """Returns the texts of a contender's cells by column, and the note."""
    (line,) = (line for line in table.lines if line.heads[0] == contender)
    cells = zip((c.label for c in table.columns), (c.text for c in line.cells), strict=False)
    return dict(cells), line.note


def test_cost_is_in_millions_and_gflops(costs):
    cost, _, _ = speed_tables(costs)
    found, _ = line_of(cost, "a")

    assert (found["generator, M"], found["discriminator, M"]) == ("3.00", "2.00")
    assert [found[f"nfe {nfe}, GFLOPs"] for nfe in (1, 2, 8)] == ["2.00", "–", "16.0"]
    assert (found["generator update, GFLOPs"], found["training, GFLOPs"]) == ("12.0", "29.0")
    assert found["forward passes"] == "14.5"
    assert line_of(cost, "dead")[1] == "failed: It died."


def test_unmeasured_cost_is_a_note(costs):
    _, sampling, training = speed_tables(costs)

    assert line_of(sampling, "a")[0]["latency, ms"] == "2,000"
    assert line_of(training, "a")[0]["of peak, %"] == "25.0"
    for table in (sampling, training):
        assert line_of(table, "b") == ({}, "not measured: <b>80%</b> of the memory")
    assert "2 threads, float32: matrix products of 50.0 GFLOP/s" in sampling.about


def test_runs_stand_beside_their_iteration(costs):
    _, _, training = speed_tables(costs)

    found, _ = line_of(training, "a")
    assert (found["images"], found["updates"], found["step, s"]) == ("64", "4", "2.00")
    assert training.lines[0].heads == ("a", "AdversarialFlow", "one seed of 2, no spread")


# --- Numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "metrics", "found"),
    [
        ("frechet_distance", ["FrechetDistance"], "Fréchet distance ↓"),
        ("recall", ["FrechetDistance", "PrecisionRecall"], "recall ↑"),
        ("diversity", ["Diversity"], "diversity → 1"),
        ("recall", [], "recall"),
        ("my_number", ["NotRegistered"], "my number"),
    ],
)
def test_metrics_describe_their_numbers(name, metrics, found):
    assert head(describe(name, metrics)) == found
