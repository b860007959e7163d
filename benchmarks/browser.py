"""Chromium, driven through the WebDriver protocol of Debian's chromium-driver.

The protocol is JSON over HTTP, and tests and benchmarks need only six of its calls, too few to
install a client library and its dependencies.
"""

import base64
import contextlib
import json
import re
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DRIVER = shutil.which("chromedriver")
SECONDS = 120


class Browser:
    """One window of a headless Chromium."""

    def __init__(self, address: str, capabilities: dict[str, Any]) -> None:
        self._session = address + "/session"
        found = self._post("", {"capabilities": {"alwaysMatch": capabilities}})
        self._session += "/" + found["sessionId"]
        self._post("/timeouts", {"script": SECONDS * 1000, "pageLoad": SECONDS * 1000})

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        data = json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self._session + path, data, headers)
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(json.load(error)["value"]["message"]) from error

    def close(self) -> None:
        """Ends the browser."""
        request = urllib.request.Request(self._session, method="DELETE")
        urllib.request.urlopen(request, timeout=SECONDS).close()

    def open(self, page: Path, view: str = "") -> None:
        """Loads a page from its file, and waits until its model is ready."""
        self._post("/url", {"url": "about:blank"})
        self._post("/url", {"url": page.resolve().as_uri() + view})
        assert self.run("return await gptjax.ready") is True

    def run(self, body: str, *arguments: Any) -> Any:
        """Runs an asynchronous function of this body with arguments `given`; returns its result."""
        script = (
            "const done = arguments[arguments.length - 1], given = arguments[0];"
            f"(async () => {{ {body} }})().then((value) => done({{ value }}),"
            " (error) => done({ error: String(error) }))"
        )
        answer = self._post("/execute/async", {"script": script, "args": [list(arguments)]})
        assert "error" not in answer, answer["error"]
        return answer.get("value")

    def tell(self, command: str, **parameters: Any) -> Any:
        """Sends a command of Chromium's own protocol."""
        return self._post("/goog/cdp/execute", {"cmd": command, "params": parameters})

    def logs(self, kind: str) -> list[dict[str, Any]]:
        """Returns new lines of the log `browser`, or events of the log `performance`."""
        lines = self._post("/se/log", {"type": kind})
        if kind != "performance":
            return lines
        return [json.loads(line["message"])["message"] for line in lines]

    def look_like(self, width: int, scheme: str, height: int = 900) -> None:
        """Sets the width of the window, and the light or dark color scheme."""
        self.tell(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme_feature = {"name": "prefers-color-scheme", "value": scheme}
        self.tell("Emulation.setEmulatedMedia", features=[scheme_feature])

    def picture(self, path: Path) -> None:
        """Writes a picture of the whole page, including the part below the window."""
        found = self.tell("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """Starts the driver and a browser, and ends both."""
    assert DRIVER is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [DRIVER, "--port=0"]
        pipe: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        with subprocess.Popen(command, text=True, **pipe) as process:
            yield from _opened(process, profile)


def _opened(process: "subprocess.Popen[str]", profile: str) -> Iterator[Browser]:
    """Opens a window with the driver that runs in `process`."""
    try:
        port = None
        while port is None:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, "chromedriver ended"
            port = re.search(r"successfully on port (\d+)", line)
        # Without a sandbox, because tests in a container run as root.
        flags = ["headless=new", "no-sandbox", "disable-gpu", f"user-data-dir={profile}"]
        options = {"args": flags, "perfLoggingPrefs": {"enableNetwork": True}}
        window = Browser(
            f"http://127.0.0.1:{port[1]}",
            {
                "browserName": "chrome",
                "goog:chromeOptions": options,
                "goog:loggingPrefs": {"performance": "ALL", "browser": "ALL"},
            },
        )
        try:
            yield window
        finally:
            window.close()
    finally:
        process.terminate()
