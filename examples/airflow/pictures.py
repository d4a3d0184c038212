"""Pictures of Airflow's own pages, taken by a headless Chromium (Debian's package `chromium`).

Chromium is spoken to by its DevTools protocol over two pipes (file descriptors 3 and 4), so that it listens nowhere.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote

from pipeline.format.errors import StalledError, UsageError

WIDTH, HEIGHT = 1600, 760  # less, and the newest run is beside the grid's panel
SEEN_S_MAX = 60.0  # Airflow's pages are one large program, and two cores have other work
LOOK_S = 0.5
SETTLED_S = 2.0  # from the moment that all is there until it has moved to its place: the page tells nobody
END_S_MAX = 10.0
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)


def take_pictures(url: str, token: str, dag_id: str, run_id: str, folder: Path) -> None:
    """The graph of a DAG, and the grid of its runs, as `airflow-graph.png` and `airflow-grid.png`.

    Raises:
        UsageError: there is no Chromium.
        StalledError: a page did not show what it should, in time.
    """
    with _browser() as browser:
        browser.call("Network.setCookie", name="_token", value=token, url=url)
        page = f"{url}/dags/{dag_id}/runs/{quote(run_id)}"
        tasks = "document.body.innerText.includes('retire') && document.body.innerText.includes('activate')"
        for view, seen in (("graph", f"{tasks} && document.querySelectorAll('.react-flow__node').length >= 8"), ("grid", tasks)):
            browser.open(url, "document.body.innerText.length > 0")
            browser.evaluate(f"localStorage.setItem('default_dag_view', JSON.stringify('{view}'))")
            browser.open(page, seen)
            (folder / f"airflow-{view}.png").write_bytes(browser.picture())


class _Browser:
    """One page of a running Chromium."""

    def __init__(self, reader: int, writer: int) -> None:
        self._reader, self._writer = os.fdopen(reader, "rb"), os.fdopen(writer, "wb")
        self._number = 0
        self._session = ""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = str(self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"])
        self.call("Emulation.setDeviceMetricsOverride", width=WIDTH, height=HEIGHT, deviceScaleFactor=1, mobile=False)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One command of the protocol; its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        self._writer.write(json.dumps(message | ({"sessionId": self._session} if self._session else {})).encode() + b"\0")
        self._writer.flush()
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise StalledError(f"Chromium refuses {method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result

    def open(self, url: str, seen: str) -> None:
        """Go to a page, and return when the JavaScript expression `seen` holds there."""
        self.call("Page.navigate", url=url)
        deadline = time.monotonic() + SEEN_S_MAX
        while not self.evaluate(seen):
            if time.monotonic() > deadline:
                text = self.evaluate("document.body && document.body.innerText")
                raise StalledError(f"{url} does not show what it should after {SEEN_S_MAX:.0f} s; it says: {text}")
            time.sleep(LOOK_S)

    def evaluate(self, expression: str) -> Any:
        """A JavaScript expression's value; None while there is no page for it yet."""
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def picture(self) -> bytes:
        """The page as a PNG, when it has come to rest."""
        time.sleep(SETTLED_S)
        return base64.b64decode(self.call("Page.captureScreenshot", format="png", optimizeForSpeed=False)["data"])

    def _read(self) -> dict[str, Any]:
        message = bytearray()
        while (byte := self._reader.read(1)) != b"\0":
            if not byte:
                raise StalledError("Chromium ended")
            message += byte
        found: dict[str, Any] = json.loads(message)
        return found

    def close(self) -> None:
        """End the browser in order."""
        with suppress(OSError, StalledError):
            self._session = ""
            self.call("Browser.close")
        self._reader.close()
        self._writer.close()


@contextmanager
def _browser() -> Iterator[_Browser]:
    program = shutil.which("chromium")
    if program is None:
        raise UsageError("there is no chromium: install it (on Debian: apt-get install chromium), or leave the pictures out")
    with TemporaryDirectory(prefix="redkv-chromium-") as profile:
        commands, ours = os.pipe()
        theirs, answers = os.pipe()
        # the shell puts the pipes where Chromium looks for them
        start = f'exec "$0" "$@" 3<&{commands} 4>&{answers}'
        words = ["/bin/sh", "-c", start, program, *FLAGS, f"--user-data-dir={profile}", f"--window-size={WIDTH},{HEIGHT}"]
        log = (Path(profile) / "chromium.log").open("wb")
        with log, subprocess.Popen(words, pass_fds=(commands, answers), stdout=log, stderr=log, start_new_session=True) as process:
            os.close(commands)
            os.close(answers)
            browser = _Browser(theirs, ours)
            try:
                yield browser
            finally:
                browser.close()
                try:
                    process.wait(END_S_MAX)
                except subprocess.TimeoutExpired:
                    process.kill()
