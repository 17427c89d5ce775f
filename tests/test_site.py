"""The site of the docs in a browser: its links, its console, and its width on a phone.

Deselected by default: it takes a Chromium and the extra ``docs``. Run with ``pytest -m browser``.
"""

import functools
import http.server
import subprocess
import sys
import threading
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import pytest
from chromium import Chromium

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parents[1]
PHONE = 390


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *words):
        pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The built site."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def address(folder):
    """The address of a server of the site."""
    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def browser():
    browser = Chromium()
    yield browser
    browser.close()


class Page(HTMLParser):
    """The links and anchors of a page."""

    def __init__(self, path):
        super().__init__()
        self.links, self.anchors = [], {"", "__tabbed"}
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        known = dict(attributes)
        self.links += [known[name] for name in ("href", "src") if known.get(name)]
        self.anchors |= {known[name] for name in ("id", "name") if known.get(name)}


def pages(folder):
    """The pages that have the menu of the site. Reports have their own tests."""
    return [
        path for path in sorted(folder.rglob("*.html")) if path.name in ("index.html", "404.html")
    ]


def test_links(folder):
    found = {path: Page(path) for path in folder.rglob("*.html")}
    broken = []
    for path, page in found.items():
        base = f"http://site/{path.relative_to(folder)}"
        for link in page.links:
            target = urlsplit(urljoin(base, link))
            if target.netloc != "site" or target.scheme != "http":
                continue
            file = folder / unquote(target.path).lstrip("/")
            file = file / "index.html" if file.is_dir() else file
            anchors = found[file].anchors if file in found else {unquote(target.fragment)}
            if not file.is_file() or unquote(target.fragment) not in anchors:
                broken.append((str(path.relative_to(folder)), link))

    assert len(found) > 60
    assert not broken


def test_every_page_on_a_phone(folder, address, browser):
    """It fits, says nothing on the console, and asks no other server."""
    problems = []
    for path in pages(folder):
        name = str(path.relative_to(folder))
        browser.open(address + name.removesuffix("index.html"), PHONE)
        width = browser.evaluate("document.documentElement.scrollWidth")
        if width > PHONE:
            problems.append((name, f"{width} pixels wide"))
        for event in browser.events:
            message = event.get("params", {})
            if event["method"] in ("Runtime.exceptionThrown", "Log.entryAdded"):
                problems.append((name, str(message)))
            if event["method"] == "Runtime.consoleAPICalled" and message["type"] == "error":
                problems.append((name, str(message)))
            if event["method"] == "Network.requestWillBeSent":
                url = message["request"]["url"]
                if not url.startswith((address, "data:", "blob:")):
                    problems.append((name, url))

    assert not problems, problems
