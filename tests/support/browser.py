"""Open pages in headless Chromium, over the pipe of its DevTools protocol."""

import base64
import contextlib
import fcntl
import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Self

import pytest

from support.processes import BASE_ENVIRON

# The pipe's two descriptors have fixed numbers in Chromium.
_READ_FD, _WRITE_FD = 3, 4
_SWITCHES = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-pipe"),
)
_INCHES_PER_MM = 1 / 25.4


class Browser:
    """A running Chromium with one open tab.

    Attributes:
        requests: The URLs that the open page has requested.
        messages: What Chromium reports about the open page, such as a violated policy.
    """

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self._read_fd = read_fd
        self._write_fd = write_fd
        self._buffer = b""
        self._last_id = 0
        self._session: str | None = None
        self._loaded = False
        self.requests: list[str] = []
        self.messages: list[str] = []

    @classmethod
    @contextlib.contextmanager
    def running(cls, folder: Path) -> Iterator[Self]:
        """Run Chromium with its data in an empty folder; skip the test where there is none."""
        program = shutil.which("chromium")
        if program is None:
            pytest.skip("needs chromium")
        fds = [fd for _ in range(2) for fd in os.pipe()]
        # Away from the numbers that the child's ends receive.
        child_read, write_fd, read_fd, child_write = (
            fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in fds
        )
        for fd in fds:
            os.close(fd)
        null = os.open(os.devnull, os.O_WRONLY)
        pid = os.posix_spawn(
            program,
            [program, *_SWITCHES, f"--user-data-dir={folder / 'chromium'}", "about:blank"],
            {**BASE_ENVIRON, "HOME": str(folder)},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, child_read, _READ_FD),
                (os.POSIX_SPAWN_DUP2, child_write, _WRITE_FD),
                (os.POSIX_SPAWN_DUP2, null, 1),
                (os.POSIX_SPAWN_DUP2, null, 2),
            ],
            setpgroup=0,
        )
        for fd in (child_read, child_write, null):
            os.close(fd)
        try:
            browser = cls(read_fd, write_fd)
            browser._attach()
            yield browser
        finally:
            os.close(write_fd)
            os.close(read_fd)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)

    def open(self, page: Path, width: int, *, dark: bool = False, media: str = "") -> None:
        """Open a page, with its scripts disabled, in a window of this width in CSS pixels."""
        self._call(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False},
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", {"media": media, "features": [scheme]})
        self.requests.clear()
        self.messages.clear()
        self._loaded = False
        self._call("Page.navigate", {"url": page.as_uri()})
        while not self._loaded:
            self._handle(self._receive())

    def evaluate(self, expression: str) -> Any:
        """The value of an expression in the open page."""
        reply = self._call("Runtime.evaluate", {"expression": expression, "returnByValue": True})
        assert "exceptionDetails" not in reply, reply
        return reply["result"].get("value")

    def press(self, key: Literal["Tab", "Enter"]) -> None:
        """Press and release a key."""
        code = {"Tab": 9, "Enter": 13}[key]
        text = {"text": "\r"} if key == "Enter" else {}
        event = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self._call("Input.dispatchKeyEvent", {"type": "keyDown", **event, **text})
        self._call("Input.dispatchKeyEvent", {"type": "keyUp", **event})

    def screenshot(self, height: int | None = None) -> bytes:
        """A PNG of the open page, or of its top."""
        size = self._call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": height or size["height"]}
        options = {"clip": {**clip, "scale": 1}, "captureBeyondViewport": True}
        return base64.b64decode(self._call("Page.captureScreenshot", options)["data"])

    def pdf(self, width_mm: float, height_mm: float) -> bytes:
        """The open page, printed on paper of this size."""
        paper = {
            "paperWidth": width_mm * _INCHES_PER_MM,
            "paperHeight": height_mm * _INCHES_PER_MM,
        }
        options = {**paper, "printBackground": False, "preferCSSPageSize": False}
        return base64.b64decode(self._call("Page.printToPDF", options)["data"])

    def _attach(self) -> None:
        targets = self._call("Target.getTargets")["targetInfos"]
        tab = next(target for target in targets if target["type"] == "page")
        options = {"targetId": tab["targetId"], "flatten": True}
        self._session = self._call("Target.attachToTarget", options)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self._call(f"{domain}.enable")
        # Only the tests' own expressions run.
        self._call("Emulation.setScriptExecutionDisabled", {"value": True})

    def _call(self, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        self._last_id += 1
        message = {"id": self._last_id, "method": method, "params": params or {}}
        if self._session:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._write_fd, data) :]
        while (reply := self._receive()).get("id") != self._last_id:
            self._handle(reply)
        assert "error" not in reply, reply
        result: dict[str, Any] = reply["result"]
        return result

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            data = os.read(self._read_fd, 1 << 20)
            assert data, "Chromium ended"
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        parsed: dict[str, Any] = json.loads(message)
        return parsed

    def _handle(self, event: dict[str, Any]) -> None:
        params = event.get("params", {})
        if event.get("method") == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif event.get("method") == "Log.entryAdded":
            self.messages.append(params["entry"]["text"])
        elif event.get("method") == "Page.loadEventFired":
            self._loaded = True
