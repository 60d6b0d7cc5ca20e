"""A headless Firefox for tests, spoken to over a socket by its Marionette protocol."""

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.browser import OpenPage

FIREFOX = next((found for name in ("firefox-esr", "firefox") if (found := shutil.which(name))), None)
# A camera that shows a moving pattern and asks nobody; a browser that calls nowhere.
PREFERENCES = {
    "media.navigator.streams.fake": True,
    "media.navigator.permission.disabled": True,
    "app.update.disabledForTesting": True,
    "app.normandy.enabled": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "toolkit.telemetry.server": "data:,",
    "services.settings.server": "data:,",
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
}


class FirefoxPage(OpenPage):
    """A page in Firefox: evaluates JavaScript in it."""

    def __init__(self, port: int) -> None:
        until = time.monotonic() + 60
        while True:
            try:
                self.socket = socket.create_connection(("127.0.0.1", port), timeout=120)
                break
            except OSError:
                assert time.monotonic() < until, "Firefox does not answer"
                time.sleep(0.1)
        self.left, self.number = b"", 0
        self._read()  # its greeting
        self.call("WebDriver:NewSession")

    def call(self, method: str, **parameters: Any) -> Any:
        """What the browser answers to one command of the protocol."""
        self.number += 1
        message = json.dumps([0, self.number, method, parameters]).encode()
        self.socket.sendall(b"%d:%b" % (len(message), message))
        kind, number, error, result = self._read()
        assert (kind, number) == (1, self.number)
        assert error is None, (method, error)
        return result

    def _read(self) -> Any:
        while b":" not in self.left:
            self.left += self._receive()
        length, _, self.left = self.left.partition(b":")
        while len(self.left) < int(length):
            self.left += self._receive()
        message, self.left = self.left[: int(length)], self.left[int(length) :]
        return json.loads(message)

    def _receive(self) -> bytes:
        received = self.socket.recv(2**20)
        assert received, "Firefox closed the connection"
        return received

    def open(self, address: str) -> None:
        self.call("WebDriver:Navigate", url=address)

    def run(self, expression: str) -> Any:
        # The page's own eval, which alone knows what its scripts declare.
        script = "return window.eval(arguments[0])"
        return self.call("WebDriver:ExecuteScript", script=script, args=[expression])["value"]

    def choose_file(self, selector: str, path: Path) -> None:
        found = self.call("WebDriver:FindElement", using="css selector", value=selector)["value"]
        self.call("WebDriver:ElementSendKeys", id=next(iter(found.values())), text=str(path))

    def list_errors(self) -> list[str]:
        """The errors and warnings that the browser logged for pages opened from disk."""
        self.call("Marionette:SetContext", value="chrome")
        script = "return Services.console.getMessageArray().map((one) => String(one)).filter((text) => text.includes('file:///'))"
        said = self.call("WebDriver:ExecuteScript", script=script, args=[])["value"]
        self.call("Marionette:SetContext", value="content")
        return said


@contextmanager
def open_firefox(profile: Path) -> Iterator[FirefoxPage]:
    """A browser of its own; whatever it started ends with it."""
    assert FIREFOX
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    profile.mkdir()
    lines = {**PREFERENCES, "marionette.port": port}
    (profile / "user.js").write_text("".join(f'user_pref("{name}", {json.dumps(value)});\n' for name, value in lines.items()))
    command = [FIREFOX, "--headless", "--no-remote", "--marionette", "--remote-allow-system-access", "--profile", str(profile)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        yield FirefoxPage(port)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
