"""A headless Chromium for tests, spoken to over a pipe by its DevTools protocol."""

import itertools
import json
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)


class OpenPage:
    """An open page of any browser."""

    def run(self, expression: str) -> Any:
        """The value of an expression, awaited where it is a promise."""
        raise NotImplementedError

    def wait(self, condition: str, seconds: float = 60) -> None:
        """Wait until a condition holds."""
        until = time.monotonic() + seconds
        while not self.run(condition):
            assert time.monotonic() < until, f"not after {seconds} s: {condition}"
            time.sleep(0.05)

    def choose_file(self, selector: str, path: Path) -> None:
        """Choose a file in the input of that CSS selector."""
        raise NotImplementedError


class Page(OpenPage):
    """A page in Chromium: evaluates JavaScript in it and keeps what it said on the console."""

    def __init__(self, reading: int, writing: int) -> None:
        self.reading, self.writing, self.left = reading, writing, b""
        self.numbers, self.session, self.console = itertools.count(1), "", list[str]()

    def call(self, method: str, **parameters: Any) -> dict:
        """What the browser answers to one method of the protocol."""
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": parameters, **({"sessionId": self.session} if self.session else {})}
        os.write(self.writing, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + 120
        while True:
            answer = self._read(until)
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            if answer.get("method") in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
                self.console.append(json.dumps(answer["params"]))

    def _read(self, until: float) -> dict:
        while b"\0" not in self.left:
            assert select.select([self.reading], [], [], max(0, until - time.monotonic()))[0], "the browser does not answer"
            self.left += os.read(self.reading, 2**20)
        text, _, self.left = self.left.partition(b"\0")
        return json.loads(text)

    def open(self, address: str) -> None:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Runtime", "Log", "Page", "DOM"):
            self.call(f"{domain}.enable")
        self.call("Page.navigate", url=address)
        self.wait("document.readyState === 'complete'")

    def run(self, expression: str) -> Any:
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def choose_file(self, selector: str, path: Path) -> None:
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        for kind, (x, y) in (("mousePressed", start), ("mouseMoved", end), ("mouseReleased", end)):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)


@contextmanager
def open_browser(profile: Path, *options: str) -> Iterator[Page]:
    """A browser of its own; whatever it started ends with it."""
    assert CHROMIUM
    to_browser, writing = os.pipe()
    reading, from_browser = os.pipe()

    def place() -> None:
        # The protocol's pipes are descriptors 3 and 4.
        os.dup2(os.dup(to_browser), 63)
        os.dup2(os.dup(from_browser), 64)
        os.dup2(63, 3)
        os.dup2(64, 4)

    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    command += ["--remote-debugging-pipe", f"--user-data-dir={profile}", *options]
    process = subprocess.Popen(
        command, preexec_fn=place, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    for descriptor in (to_browser, from_browser):
        os.close(descriptor)
    try:
        yield Page(reading, writing)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        os.close(reading)
        os.close(writing)
