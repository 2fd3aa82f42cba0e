"""A headless Chromium driven over the WebDriver protocol, with nothing but the standard library."""

import base64
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
MISSING = "needs Debian's packages chromium and chromium-driver"
OPTIONS = {
    "browserName": "chrome",
    "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
    "goog:chromeOptions": {
        "binary": CHROMIUM,
        "args": [
            "--headless=new",
            "--no-sandbox",
            # WebGL without a GPU.
            "--use-gl=angle",
            "--use-angle=swiftshader",
            "--enable-unsafe-swiftshader",
            "--disable-dev-shm-usage",
            "--window-size=1100,900",
        ],
    },
}


class Browser:
    """One session; `call` sends one command of the protocol."""

    def __init__(self, address: str) -> None:
        self.address = address
        made = self.call("POST", "/session", {"capabilities": {"alwaysMatch": OPTIONS}})
        self.address = f"{address}/session/{made['sessionId']}"

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """The `value` of the answer. Raises HTTPError for a refused command, such as a script with an error."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.loads(answer.read())["value"]

    def open(self, file: Path) -> None:
        self.call("POST", "/url", {"url": file.resolve().as_uri()})

    def run(self, script: str, *words: Any) -> Any:
        return self.call("POST", "/execute/sync", {"script": script, "args": list(words)})

    def text(self, name: str) -> str:
        """The text of the element with this id."""
        return self.run("return document.getElementById(arguments[0]).textContent", name)

    def log(self, kind: str) -> list[dict[str, Any]]:
        """Entries of `browser` (the console) or `performance` (the network) since the last call."""
        return self.call("POST", "/se/log", {"type": kind})

    def requests(self) -> list[str]:
        """Addresses asked for since the last call, those of the file itself and of embedded data too."""
        messages = [json.loads(entry["message"])["message"] for entry in self.log("performance")]
        return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]

    def screenshot(self, file: Path) -> None:
        file.write_bytes(base64.b64decode(self.call("GET", "/screenshot")))


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A browser for as long as the block lasts; its files lie in `folder`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "HOME": str(folder), "no_proxy": "127.0.0.1"}
    with (folder / "driver.log").open("w") as log:
        driver = subprocess.Popen([str(DRIVER), f"--port={port}"], stdout=log, stderr=log, env=environment)
    session = None
    try:
        for _ in range(300):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        session = Browser(f"http://127.0.0.1:{port}")
        yield session
    finally:
        if session is not None:
            session.call("DELETE", "")
        driver.terminate()
        driver.wait(30)
