"""A browser: Chromium, driven by chromedriver over the WebDriver protocol.

https://www.w3.org/TR/webdriver2/
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the name of a reference, by the standard
_FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--window-size=1280,900",
]
WAIT_SECONDS = 30.0


def missing() -> str:
    """Why there is no browser; empty if there is one."""
    for name in ("chromedriver", "chromium"):
        if shutil.which(name) is None:
            return f"{name} is not installed (see scripts/browser)"
    return ""


class Driver:
    """One session of a browser."""

    def __init__(self, url: str, folder: str) -> None:
        self._url = url
        capabilities = {
            "browserName": "chrome",
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
            "goog:chromeOptions": {
                "binary": shutil.which("chromium"),
                "args": [*_FLAGS, f"--user-data-dir={folder}"],
            },
        }
        answer = self._send("POST", "/session", {"capabilities": {"alwaysMatch": capabilities}})
        self._session = f"/session/{answer['sessionId']}"

    def _send(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(self._url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return json.loads(answer.read())["value"]
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(json.loads(error.read())["value"]["message"]) from None

    def command(self, name: str, body: Any = None, method: str = "POST") -> Any:
        return self._send(method, f"{self._session}/{name}", {} if body is None else body)

    def open(self, url: str) -> None:
        self.command("url", {"url": url})

    @property
    def url(self) -> str:
        return str(self._send("GET", f"{self._session}/url"))

    def script(self, code: str, *arguments: Any) -> Any:
        return self.command("execute/sync", {"script": code, "args": list(arguments)})

    def asynchronous(self, code: str) -> Any:
        return self.command("execute/async", {"script": code, "args": []})

    def text(self, selector: str = "body") -> str:
        """The text of an element; empty if there is no such element."""
        code = "return document.querySelector(arguments[0])?.innerText ?? ''"
        return str(self.script(code, selector))

    def find(self, selector: str) -> str:
        """A reference to an element, as soon as there is one."""
        end = time.monotonic() + WAIT_SECONDS
        while True:
            found = self.command("elements", {"using": "css selector", "value": selector})
            if found:
                return str(found[0][_ELEMENT])
            assert time.monotonic() < end, f"{selector} is not on {self.url}:\n{self.text()}"
            time.sleep(0.05)

    def click(self, selector: str) -> None:
        self.command(f"element/{self.find(selector)}/click")

    def type(self, selector: str, text: str) -> None:
        element = self.find(selector)
        self.command(f"element/{element}/clear")
        self.command(f"element/{element}/value", {"text": text})

    def wait(self, text: str, selector: str = "body") -> str:
        """Wait until an element contains a text; returns all of its text."""
        end = time.monotonic() + WAIT_SECONDS
        while text not in (found := self.text(selector)):
            assert time.monotonic() < end, f"{text!r} is not on {self.url}:\n{self.text()}"
            time.sleep(0.05)
        return found

    def log(self, kind: str) -> list[dict[str, Any]]:
        """The entries of the log `browser` or `performance` since the last call."""
        found: list[dict[str, Any]] = self.command("se/log", {"type": kind})
        return found

    def requested(self) -> set[str]:
        """The URLs that were requested since the last call."""
        messages = [json.loads(entry["message"])["message"] for entry in self.log("performance")]
        return {
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
        }

    def resize(self, width: int, height: int) -> None:
        self.command("window/rect", {"width": width, "height": height})

    def screenshot(self, path: Path) -> None:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(base64.b64decode(self._send("GET", f"{self._session}/screenshot")))

    def close(self) -> None:
        self._send("DELETE", self._session)


@contextmanager
def browser() -> Iterator[Driver]:
    """A new browser with an empty profile."""
    with tempfile.TemporaryDirectory(prefix="aiproxy-browser-") as folder:
        process = subprocess.Popen(
            ["chromedriver", "--port=0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            assert process.stdout is not None
            port = ""
            for line in process.stdout:
                if "on port " in line and "successfully" in line:
                    port = line.rpartition("port ")[2].strip(" .\n")
                    break
            driver = Driver(f"http://127.0.0.1:{port}", folder)
            try:
                yield driver
            finally:
                driver.close()
        finally:
            process.terminate()
            process.wait(30)
            assert process.stdout is not None
            process.stdout.close()
