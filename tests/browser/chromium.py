# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""A headless Chromium, spoken to over its debugging pipe: what a page draws, asks the network for and complains about."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from sim import apt
from sim.shell import LabError, fail, say

# Ubuntu's package of this name installs a snap, under the second.
_PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = (
    "--headless",
    "--no-sandbox",  # the tests may run as root, and read only pages that they wrote
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--remote-debugging-pipe",
)
_TIMEOUT = 120.0  # seconds for an answer, on a busy machine


class BrowserError(Exception):
    """Chromium says no, or nothing."""


def program() -> str | None:
    """Where a Chromium is on this machine."""
    return next((found for name in _PROGRAMS if (found := shutil.which(name))), None)


def ensure() -> None:
    """Install a Chromium where there is none. Raises LabError."""
    if program() is None:
        apt.install(["chromium"], instead="install Chromium yourself")
    if program() is None:
        raise LabError(f"the package chromium brought none of {', '.join(_PROGRAMS)}")
    say(f"{program()} is there")


@dataclass
class Page:
    """One page that was opened. C(complaints) are errors of its console, C(requests) every address that it asked for."""

    browser: Browser
    session: str
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page, whatever the page's own policy on scripts is."""
        done = self.browser.ask("Runtime.evaluate", {"expression": expression, "returnByValue": True}, self.session)
        if "exceptionDetails" in done:
            raise BrowserError(str(done["exceptionDetails"]))
        return done["result"].get("value")

    def screenshot(self, path: Path) -> None:
        """All of the page as a PNG, to look at."""
        done = self.browser.ask("Page.captureScreenshot", {"captureBeyondViewport": True}, self.session)
        path.write_bytes(base64.b64decode(done["data"]))


class Browser:
    """A running Chromium. Messages are JSON that ends with a zero byte: its file 3 reads ours, its file 4 writes to us."""

    def __init__(self, profile: Path) -> None:
        there, self._out = os.pipe()
        self._in, back = os.pipe()
        command = f'exec "$@" 3<&{there} 4>&{back}'
        # Not sh: Debian's takes numbers of one digit only.
        argv = ["bash", "-c", command, "bash", program() or _PROGRAMS[0], *_FLAGS, f"--user-data-dir={profile}"]
        self._process = subprocess.Popen(
            argv, pass_fds=(there, back), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(there)
        os.close(back)
        self._number = 0
        self._pending = b""
        self._pages: dict[str, Page] = {}

    def ask(self, method: str, params: dict[str, Any], session: str | None = None) -> dict[str, Any]:
        """Call a method of the DevTools protocol. Raises BrowserError."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        answer = self._until(lambda seen: seen.get("id") == message["id"], method)
        if "error" in answer:
            raise BrowserError(f"{method}: {answer['error']}")
        result: dict[str, Any] = answer["result"]
        return result

    @contextlib.contextmanager
    def open(self, path: Path, *, width: int, dark: bool = False, printed: bool = False) -> Iterator[Page]:
        """Open a file in a window of this width in pixels of CSS, for somebody who prefers dark or light pages, or as it is printed."""
        target = self.ask("Target.createTarget", {"url": "about:blank"})["targetId"]
        session = self.ask("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        page = self._pages[session] = Page(self, session)
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.ask(f"{domain}.enable", {}, session)
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self.ask("Emulation.setDeviceMetricsOverride", size, session)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", {"media": "print" if printed else "", "features": [scheme]}, session)
        self.ask("Page.navigate", {"url": path.as_uri()}, session)
        self._until(lambda seen: seen.get("method") == "Page.loadEventFired" and seen.get("sessionId") == session, path.name)
        try:
            yield page
        finally:
            del self._pages[session]
            self.ask("Target.closeTarget", {"targetId": target})

    def close(self) -> None:
        """End it. Raises TimeoutExpired when it does not end."""
        with contextlib.suppress(BrowserError, OSError):
            self.ask("Browser.close", {})
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(timeout=20)
        os.close(self._out)
        os.close(self._in)

    def _until(self, wanted: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
        """The message that is waited for; what pages say in between is kept with them."""
        end = time.monotonic() + _TIMEOUT
        while True:
            while b"\0" in self._pending:
                raw, self._pending = self._pending.split(b"\0", 1)
                message: dict[str, Any] = json.loads(raw)
                self._note(message)
                if wanted(message):
                    return message
            if not select.select([self._in], [], [], max(0.0, end - time.monotonic()))[0]:
                raise BrowserError(f"{what}: no answer within {_TIMEOUT:.0f} s")
            chunk = os.read(self._in, 1 << 20)
            if not chunk:
                raise BrowserError(f"{what}: Chromium ended")
            self._pending += chunk

    def _note(self, message: dict[str, Any]) -> None:
        page = self._pages.get(message.get("sessionId", ""))
        if page is None:
            return
        params = message.get("params", {})
        match message.get("method"):
            case "Network.requestWillBeSent":
                page.requests.append(params["request"]["url"])
            case "Log.entryAdded" if params["entry"]["level"] in ("error", "warning"):
                page.complaints.append(params["entry"]["text"])
            case "Runtime.exceptionThrown":
                page.complaints.append(str(params["exceptionDetails"]))
            case "Runtime.consoleAPICalled":
                page.complaints.append(str(params["args"]))


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """A Chromium with an empty profile, while it is needed."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        running = Browser(Path(profile))
        try:
            yield running
        finally:
            running.close()


if __name__ == "__main__":
    try:
        ensure()
    except LabError as error:
        sys.exit(fail(error))
