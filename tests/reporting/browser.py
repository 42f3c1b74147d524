"""A headless Chromium, driven through the DevTools protocol over a pipe: no driver, no socket, no further package."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# Chromium reads from descriptor 3 and writes to 4; they are put there by a process that it then replaces.
_EXEC = (
    "import os, sys; r, w = (os.dup(int(n)) for n in sys.argv[1:3]); a, b = os.dup2(r, 20), os.dup2(w, 21); "
    "os.dup2(a, 3); os.dup2(b, 4); os.closerange(5, 64); os.execv(sys.argv[3], sys.argv[3:])"
)
_ARROWS = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}
_KEYS = {"PageUp": 33, "PageDown": 34, "End": 35, "Home": 36, **_ARROWS}


def chromium() -> str:
    """Path of a Chromium; the test is skipped where there is none."""
    found = os.environ.get("ROBPICKER_TEST_CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        pytest.skip("no Chromium here (or name one in ROBPICKER_TEST_CHROMIUM)")
    return found


class Browser:
    """One page of a headless browser.

    Attributes:
        errors: exceptions that the page's scripts threw, and what its security policy refused.
        downloads: the folder that downloads go to.
    """

    def __init__(self, folder: Path, *, size: tuple[int, int] = (1280, 1000), flags: tuple[str, ...] = ()) -> None:
        self.errors: list[str] = []
        self.downloads = folder / "downloads"
        self.downloads.mkdir(parents=True, exist_ok=True)
        to_read, self._write = os.pipe()
        self._read, to_write = os.pipe()
        arguments = [
            chromium(), "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
            "--disable-dev-shm-usage", f"--window-size={size[0]},{size[1]}", f"--user-data-dir={folder / 'profile'}",
            "--remote-debugging-pipe", *flags, "about:blank",
        ]  # fmt: skip
        self._log = (folder / "chromium.log").open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-c", _EXEC, str(to_read), str(to_write), *arguments],
            pass_fds=(to_read, to_write),
            stdout=self._log,
            stderr=self._log,
        )
        os.close(to_read)
        os.close(to_write)
        self._buffer, self._count, self._session = b"", 0, ""
        self._events: list[dict[str, Any]] = []
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(target for target in targets if target["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(self.downloads), eventsEnabled=True)

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError, RuntimeError):
            self._send("Browser.close", {})
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._read)
        os.close(self._write)
        self._log.close()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of a command of the protocol."""
        number = self._send(method, parameters)
        for message in self._messages(60):
            if message.get("id") == number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                result: dict[str, Any] = message["result"]
                return result
            self._note(message)
        raise TimeoutError(method)

    def open(self, path: Path) -> None:
        """Load a file and wait until it is there and its viewer has read all slices."""
        self._events.clear()
        self.call("Page.navigate", url=path.as_uri())
        self.wait_for("Page.loadEventFired")
        self.ready()

    def reload(self) -> None:
        """Load the page again."""
        self._events.clear()
        self.call("Page.reload")
        self.wait_for("Page.loadEventFired")
        self.ready()

    def ready(self) -> None:
        """Wait until the viewer has read all slices and drawn."""
        deadline = time.monotonic() + 30
        while self.run("document.getElementById('stage')?.dataset.read") != "true":
            if time.monotonic() > deadline:
                raise TimeoutError(f"the viewer does not get ready: {self.errors}")
            time.sleep(0.05)

    def run(self, expression: str) -> Any:
        """The value of an expression in the page, promises awaited."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(f"{expression}: {found['exceptionDetails']}")
        return found["result"].get("value")

    def settle(self) -> None:
        """Wait until what was asked for is drawn."""
        self.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def press(self, key: str, *, shift: bool = False, control: bool = False) -> None:
        """Press a key of the keyboard, as a person would."""
        modifiers = (8 if shift else 0) + (2 if control else 0)
        code = _KEYS.get(key, ord(key.upper()) if len(key) == 1 else 0)
        text = {"text": key} if len(key) == 1 and not control else {}
        event = {"key": key, "modifiers": modifiers, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", **event, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **event)

    def click(self, element: str, *, at: tuple[float, float] | None = None, shift: bool = False) -> None:
        """Click the middle of the element with this id, or a point of it given in shares of its width and height."""
        right, down = at or (0.5, 0.5)
        x, y = self.run(
            f"(() => {{ const e = document.getElementById({element!r}); e.scrollIntoView({{block: 'center'}}); "
            f"const b = e.getBoundingClientRect(); return [b.left + {right} * b.width, b.top + {down} * b.height]; }})()"
        )
        event = {"x": x, "y": y, "button": "left", "clickCount": 1, "modifiers": 8 if shift else 0}
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        self.call("Input.dispatchMouseEvent", type="mousePressed", **event)
        self.call("Input.dispatchMouseEvent", type="mouseReleased", **event)

    def choose(self, element: str, value: str | float) -> None:
        """Set a select, slider or box."""
        self.run(
            f"(() => {{ const e = document.getElementById({element!r}); "
            f"if (e.type === 'checkbox') e.checked = {json.dumps(value)}; else e.value = {json.dumps(value)}; "
            "for (const kind of ['input', 'change']) e.dispatchEvent(new Event(kind, { bubbles: true })); })()"
        )

    def download(self, element: str, count: int = 1) -> list[Path]:
        """Click what saves files, and wait until they have come."""
        before = set(self.downloads.iterdir())
        self._events.clear()
        self.click(element)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            self.run("0")
            states = [
                event["params"]["state"] for event in self._events if event["method"] == "Browser.downloadProgress"
            ]
            if states.count("completed") >= count:
                return sorted(set(self.downloads.iterdir()) - before)
            time.sleep(0.05)
        raise TimeoutError(f"{element} saved no {count} files")

    def screenshot(self, path: Path, *, whole: bool = True) -> None:
        """A picture of the page, as PNG."""
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))

    def wait_for(self, event: str) -> None:
        """Wait for an event of the protocol."""
        if any(message["method"] == event for message in self._events):
            return
        for message in self._messages(60):
            self._note(message)
            if message.get("method") == event:
                return
        raise TimeoutError(event)

    def _send(self, method: str, parameters: dict[str, Any]) -> int:
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": parameters}
        if self._session and not method.startswith(("Browser.", "Target.")):
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        return self._count

    def _note(self, message: dict[str, Any]) -> None:
        if "method" not in message:
            return
        self._events.append(message)
        if message["method"] == "Runtime.exceptionThrown":
            self.errors.append(str(message["params"]["exceptionDetails"]))
        elif message["method"] == "Log.entryAdded" and message["params"]["entry"]["level"] == "error":
            self.errors.append(str(message["params"]["entry"]["text"]))

    def _messages(self, seconds: float) -> Iterator[dict[str, Any]]:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            while b"\0" in self._buffer:
                text, _, self._buffer = self._buffer.partition(b"\0")
                yield json.loads(text)
            if select.select([self._read], [], [], 0.2)[0]:
                chunk = os.read(self._read, 1 << 20)
                if not chunk:
                    raise RuntimeError(f"Chromium has ended with code {self._process.wait()}")
                self._buffer += chunk
