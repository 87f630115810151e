"""A browser without a window, for tests that click through pages as somebody would."""

import asyncio
import json
import re
import shutil
import subprocess
import time
from contextlib import contextmanager

import aiohttp
import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
OPTIONS = ("--headless", "--no-sandbox", "--disable-dev-shm-usage", "--disable-background-networking")
OPTIONS += ("--disable-component-update", "--enable-unsafe-swiftshader", "--remote-debugging-port=0")


class Tab:
    """A tab, by Chromium's DevTools protocol. errors: what its scripts complain of; asked: what it asked for."""

    def __init__(self, profile, *options):
        self.loop, self.errors, self.asked, self.number = asyncio.new_event_loop(), [], [], 0
        command = [BROWSER, *OPTIONS, *options, f"--user-data-dir={profile}", "about:blank"]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        lines = iter(self.process.stderr.readline, "")
        port = next(
            found[1] for line in lines if (found := re.search(r"DevTools listening on ws://[^:]+:(\d+)/", line))
        )
        self.loop.run_until_complete(self._connect(port))
        for domain in ("Page", "Runtime", "Network"):
            self.call(f"{domain}.enable")

    async def _connect(self, port):
        self.session = aiohttp.ClientSession()
        async with self.session.get(f"http://127.0.0.1:{port}/json") as answer:
            tabs = await answer.json(content_type=None)
        address = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
        self.socket = await self.session.ws_connect(address, max_msg_size=0)

    def call(self, method, **given):
        return self.loop.run_until_complete(asyncio.wait_for(self._call(method, given), 60))

    async def _call(self, method, given):
        self.number += 1
        await self.socket.send_json({"id": self.number, "method": method, "params": given})
        while True:
            said = await self.socket.receive_json()
            if said.get("method") == "Runtime.exceptionThrown":
                self.errors.append(said["params"]["exceptionDetails"])
            if said.get("method") == "Network.requestWillBeSent":
                self.asked.append(said["params"]["request"]["url"])
            if said.get("id") == self.number:
                assert "error" not in said, said
                return said["result"]

    def js(self, expression):
        said = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in said, said["exceptionDetails"]
        return said["result"].get("value")

    def until(self, expression, seconds=20):
        """What the expression is as soon as it is something."""
        end = time.monotonic() + seconds
        while not (found := self.js(expression)):
            assert time.monotonic() < end, f"never: {expression}; {self.errors}"
            time.sleep(0.05)
        return found

    def click(self, selector):
        """With the mouse, in the middle of what is seen there."""
        place = f"document.querySelector({json.dumps(selector)})"
        x, y = self.until(
            f"(() => {{ const e = {place}; if (!e) return null; e.scrollIntoView({{block: 'center'}});"
            "const r = e.getBoundingClientRect(); return r.width && [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def type(self, text):
        self.call("Input.insertText", text=text)

    def open(self, address):
        self.call("Page.navigate", url="about:blank")
        self.errors.clear()
        self.asked.clear()
        self.call("Page.navigate", url=address)
        self.until("document.body && document.body.dataset.ready")

    def close(self):
        self.loop.run_until_complete(self.socket.close())
        self.loop.run_until_complete(self.session.close())
        self.loop.close()
        self.process.terminate()
        self.process.communicate(timeout=30)


@contextmanager
def opened(profile, *options):
    """A tab of a browser with an empty profile; the test is skipped where there is no browser."""
    if BROWSER is None:
        pytest.skip("no chromium, chromium-browser or google-chrome on PATH to click in")
    tab = Tab(profile, *options)
    tab.call("Emulation.setDeviceMetricsOverride", width=1400, height=1000, deviceScaleFactor=1, mobile=False)
    try:
        yield tab
    finally:
        tab.close()
