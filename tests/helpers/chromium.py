"""Headless Chromium, driven through its DevTools protocol.

A call sends a command and reads until its answer comes; whatever the browser says of its own accord
in the meantime (requests, errors, words on the console) is kept in ``events``.
"""

import asyncio
import base64
import itertools
import shutil
import subprocess
import tempfile
import time

import aiohttp

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
)
PATIENCE = 60
"""Seconds after which a browser that says nothing is given up."""


class Chromium:
    """A browser with one tab."""

    def __init__(self):
        program = next(filter(None, map(shutil.which, NAMES)), None)
        if program is None:
            raise FileNotFoundError(f"There is no browser: none of {', '.join(NAMES)}.")
        self.events, self.session = [], None
        self.numbers = itertools.count(1)
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        profile = f"--user-data-dir={self.folder.name}"
        self.process = subprocess.Popen(
            [program, *FLAGS, profile, "about:blank"],
            stderr=subprocess.DEVNULL,
        )
        try:
            self.loop.run_until_complete(self._connect())
        except BaseException:
            self._end()
            raise

    async def _connect(self):
        self.session = aiohttp.ClientSession()
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self.socket = await self.session.ws_connect(await self._address(), max_msg_size=0)
                return
            except (OSError, StopIteration, aiohttp.ClientError):
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.1)

    async def _address(self):
        with open(f"{self.folder.name}/DevToolsActivePort") as file:
            port = int(file.readline())
        async with self.session.get(f"http://127.0.0.1:{port}/json/list") as answer:
            tabs = await answer.json()
        return next(iter(t["webSocketDebuggerUrl"] for t in tabs if t["type"] == "page"))

    def call(self, method, **parameters):
        """Sends a command of the protocol and returns its result."""
        return self.loop.run_until_complete(
            asyncio.wait_for(self._call(method, parameters), PATIENCE)
        )

    async def _call(self, method, parameters):
        number = next(self.numbers)
        await self.socket.send_json({"id": number, "method": method, "params": parameters})
        while True:
            message = await self.socket.receive_json()
            if message.get("id") == number:
                break
            self.events.append(message)
        if "error" in message:
            raise RuntimeError(f"{method}: {message['error']['message']}")
        return message["result"]

    def open(self, page, width=1280, height=900, media="screen", scheme="light"):
        """Opens a file or address on a screen, light or dark, and forgets earlier events."""
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", media=media, features=features)
        self.events = []
        url = page if isinstance(page, str) else page.resolve().as_uri()
        self.call("Page.navigate", url=url)
        loaded = "document.readyState === 'complete' ? r() : addEventListener('load', r)"
        self.evaluate(f"new Promise((r) => {loaded})")

    def evaluate(self, expression):
        """Returns the value of an expression of JavaScript, of a promise what it holds."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"]["exception"]["description"])
        return answer["result"].get("value")

    def press(self, key):
        """Presses a key where the focus is."""
        code = {"Enter": 13, " ": 32}[key]
        text = {"Enter": "\r"}.get(key, key)
        common = dict(key=key, windowsVirtualKeyCode=code)
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def click(self, x, y):
        """Clicks on a place of the window."""
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def screenshot(self, whole=False):
        """Returns a PNG of the window, or of the whole page."""
        answer = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        return base64.b64decode(answer["data"])

    def pdf(self):
        """Returns the page as it is printed."""
        return base64.b64decode(self.call("Page.printToPDF")["data"])

    def close(self):
        """Ends the browser."""
        try:
            self.call("Browser.close")
            self.process.wait(PATIENCE)
        finally:
            self._end()

    def _end(self):
        if self.session is not None:
            self.loop.run_until_complete(self.session.close())
        self.loop.close()
        self.process.kill()
        self.process.wait()
        self.folder.cleanup()
