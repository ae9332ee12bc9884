"""A headless Chromium, spoken to by its DevTools protocol over a pipe: no driver and no package between."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import time
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
MISSING = f"got no browser, expected one of {', '.join(NAMES)} in PATH: `sh scripts/browser.sh`, as root on Debian"
FLAGS = [
    *("--headless", "--remote-debugging-pipe", "--no-first-run", "--disable-gpu", "--disable-dev-shm-usage"),
    *("--disable-background-networking", "--disable-component-update", "--hide-scrollbars"),
]
KEYS = {"Enter": (13, "\r"), " ": (32, " "), "Tab": (9, ""), "o": (79, "o")}
SECONDS = 60.0  # for one answer


def program() -> str | None:
    return next(filter(None, map(shutil.which, NAMES)), None)


class Chromium:
    """The process. Commands go to its descriptor 3 and answers come from 4, each JSON and a zero byte."""

    def __init__(self, path: str, profile: Path):
        commands, self._commands = self._pipe()
        self._answers, answers = self._pipe()
        sandbox = () if os.geteuid() else ("--no-sandbox",)  # Chromium's refuses root
        self._pid = os.posix_spawn(
            path,
            [path, *FLAGS, *sandbox, f"--user-data-dir={profile}", "about:blank"],
            dict(os.environ),
            file_actions=[
                (os.POSIX_SPAWN_DUP2, commands, 3),
                (os.POSIX_SPAWN_DUP2, answers, 4),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
            ],
            setpgroup=0,
        )
        os.close(commands)
        os.close(answers)
        self._number, self._buffer = 0, b""
        self.events: list[dict[str, Any]] = []

    @staticmethod
    def _pipe() -> tuple[int, int]:
        """A pipe whose two descriptors are not among those that the child gets."""
        ends = os.pipe()
        high = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends)
        for end in ends:
            os.close(end)
        return high[0], high[1]

    def send(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """The result of a command; what happens until it is there is kept in `events`."""
        self._number += 1
        number = self._number
        command = {"id": number, "method": method, "params": parameters}
        left = json.dumps(command | ({"sessionId": session} if session else {})).encode() + b"\0"
        while left:
            left = left[os.write(self._commands, left) :]
        deadline = time.monotonic() + SECONDS
        while (answer := self.receive(deadline - time.monotonic())) is not None:
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                result: dict[str, Any] = answer["result"]
                return result
        raise TimeoutError(f"{method}: no answer in {SECONDS:.0f} s")

    def receive(self, seconds: float) -> dict[str, Any] | None:
        """The next message, kept in `events` if it is one; None when there is none in time."""
        deadline = time.monotonic() + seconds
        while b"\0" not in self._buffer:
            if not select.select([self._answers], [], [], max(0.0, deadline - time.monotonic()))[0]:
                return None
            chunk = os.read(self._answers, 2**20)
            if not chunk:
                raise RuntimeError("Chromium has ended")
            self._buffer += chunk
        message, self._buffer = self._buffer.split(b"\0", 1)
        found: dict[str, Any] = json.loads(message)
        if "method" in found:
            self.events.append(found)
        return found

    def close(self) -> None:
        os.killpg(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._commands)
        os.close(self._answers)


class Page:
    """A tab: what it shows, what it complains of, what it asks the network for."""

    def __init__(self, browser: Chromium, width: int = 1280, height: int = 900, dark: bool = False):
        self.browser = browser
        self.target = browser.send("Target.createTarget", url="about:blank")["targetId"]
        self.session = browser.send("Target.attachToTarget", targetId=self.target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        mobile = width < 600
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self.browser.send(method, self.session, **parameters)

    def open(self, path: Path) -> float:
        """Open a file; seconds until it was loaded, its scripts run."""
        start, before = time.perf_counter(), len(self._seen("Page.loadEventFired"))
        self.send("Page.navigate", url=path.as_uri())
        while len(self._seen("Page.loadEventFired")) == before:
            if self.browser.receive(SECONDS) is None:
                raise TimeoutError(f"{path} was not loaded in {SECONDS:.0f} s")
        return time.perf_counter() - start

    def _seen(self, method: str) -> list[dict[str, Any]]:
        mine = (event for event in self.browser.events if event.get("sessionId") == self.session)
        return [event["params"] for event in mine if event["method"] == method]

    def close(self) -> None:
        self.browser.send("Target.closeTarget", targetId=self.target)

    def events(self, method: str) -> list[dict[str, Any]]:
        """The parameters of all events of this name so far."""
        self.evaluate("0")  # what was under way has come in after this
        return self._seen(method)

    def errors(self) -> list[Any]:
        """Uncaught exceptions, console errors and warnings, what the browser itself logs, dialogs."""
        consoles = [e for e in self.events("Runtime.consoleAPICalled") if e["type"] in ("error", "warning", "assert")]
        logged = [e["entry"]["text"] for e in self.events("Log.entryAdded")]
        dialogs = self.events("Page.javascriptDialogOpening")
        return [*self.events("Runtime.exceptionThrown"), *consoles, *logged, *dialogs]

    def requests(self) -> list[str]:
        """Every address that was asked for, the page's own included, in order."""
        return [event["request"]["url"] for event in self.events("Network.requestWillBeSent")]

    def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page, awaited."""
        found = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(f"{expression}: {found['exceptionDetails']}")
        return found["result"].get("value")

    def wait(self, condition: str, seconds: float = SECONDS) -> None:
        """Until the condition holds in the page."""
        deadline = time.monotonic() + seconds
        while not self.evaluate(condition):
            if time.monotonic() > deadline:
                raise TimeoutError(condition)
            time.sleep(0.02)

    def click(self, selector: str) -> None:
        """Press and let go of the mouse in the middle of the element."""
        place = self.evaluate(
            f"(() => {{ const found = document.querySelector({json.dumps(selector)});"
            "found.scrollIntoView({block: 'center', behavior: 'instant'}); const box = found.getBoundingClientRect();"
            "return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            held = {"button": "none" if kind == "mouseMoved" else "left", "clickCount": int(kind != "mouseMoved")}
            self.send("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], **held)

    def press(self, key: str) -> None:
        """Press and let go of a key, whatever has the focus."""
        number, text = KEYS[key]
        name = {" ": "Space"}.get(key, key)
        for kind in ("keyDown", "keyUp"):
            typed = {"text": text} if text and kind == "keyDown" else {}
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=name, windowsVirtualKeyCode=number, **typed)

    def type(self, text: str) -> None:
        self.send("Input.insertText", text=text)

    def screenshot(self, path: Path, selector: str = "html") -> Path:
        """A PNG of the first element that the selector finds, however far down the page it is."""
        box = self.evaluate(
            f"(box => ({{x: box.x + scrollX, y: box.y + scrollY, width: box.width, height: box.height, scale: 1}}))"
            f"(document.querySelector({json.dumps(selector)}).getBoundingClientRect())"
        )
        shot = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=box)
        path.write_bytes(base64.b64decode(shot["data"]))
        return path
