"""A headless Chromium, driven over its DevTools protocol: a websocket with a JSON object a message."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio
import trio_websocket

__all__ = ["Browser", "running_chromium"]

# A loaded machine takes many seconds to start a browser.
LIMIT = 120.0

# Of an image: how many colours it has, and which part of it is not of the one that it has most of.
LOOK = """
async (url) => {
  const image = new Image();
  image.src = url;
  await image.decode();
  const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  const words = new Uint32Array(context.getImageData(0, 0, canvas.width, canvas.height).data.buffer);
  const counts = new Map();
  for (const word of words) counts.set(word, (counts.get(word) || 0) + 1);
  const [most, count] = [...counts].reduce((one, other) => (other[1] > one[1] ? other : one));
  const [red, green, blue] = [most & 255, (most >> 8) & 255, (most >> 16) & 255];
  return {colours: counts.size, drawn: 1 - count / words.length, paper: (red + green + blue) / 3};
}
"""


@attrs.frozen
class Look:
    """What a picture of a part of the page has in it."""

    colours: int
    drawn: float
    """The part of it that is not background."""
    paper: float
    """How light the background is, 0 to 255."""


@attrs.define
class Browser:
    """One tab."""

    _websocket: trio_websocket.WebSocketConnection
    _session: str = ""
    complaints: list[str] = attrs.Factory(list)
    """Whatever the console has said that is an error, and each request that failed."""
    _numbers: itertools.count[int] = attrs.field(factory=lambda: itertools.count(1))
    _loaded: bool = False

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Ask for something and wait for the answer; what is told meanwhile is noted."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        await self._websocket.send_message(json.dumps(message))
        while True:
            answer = await self._receive()
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result

    async def _receive(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(await self._websocket.get_message())
        told = message.get("params", {})
        match message.get("method"):
            case "Page.loadEventFired":
                self._loaded = True
            case "Runtime.exceptionThrown":
                self.complaints.append(str(told["exceptionDetails"]["text"]))
            case "Runtime.consoleAPICalled" if told["type"] in ("error", "assert"):
                self.complaints.append(str(told["args"]))
            case "Log.entryAdded" if told["entry"]["level"] == "error":
                self.complaints.append(f"{told['entry']['text']} {told['entry'].get('url', '')}")
        return message

    async def open(self, url: str) -> None:
        """Go there, and wait until the page is loaded with all its pictures."""
        self._loaded = False
        gone = await self.call("Page.navigate", url=url)
        if "errorText" in gone:
            self.complaints.append(f"{gone['errorText']} {url}")
            return
        while not self._loaded:
            await self._receive()

    async def evaluate(self, expression: str) -> Any:
        """What a piece of JavaScript comes to."""
        done = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in done:
            raise RuntimeError(f"{expression}: {done['exceptionDetails']}")
        return done["result"].get("value")

    async def show_as(self, width: int, scheme: str) -> None:
        """On a screen of that width, in ``light`` or in ``dark``."""
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 500
        )
        await self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    async def look_at(self, selector: str) -> Look:
        """Take a picture of an element, and say what is in it."""
        box = await self.evaluate(
            f"(() => {{const box = document.querySelector({json.dumps(selector)}).getBoundingClientRect();"
            " return {x: box.x + scrollX, y: box.y + scrollY, width: box.width, height: box.height, scale: 1}})()"
        )
        taken = await self.call("Page.captureScreenshot", clip=box, captureBeyondViewport=True)
        return Look(**await self.evaluate(f"({LOOK})({json.dumps('data:image/png;base64,' + taken['data'])})"))


@asynccontextmanager
async def running_chromium(program: str, folder: Path) -> AsyncIterator[Browser]:
    """A browser with one empty tab, which is gone behind the block; ``folder`` is for what it keeps."""
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    options += ["--disable-extensions", "--disable-background-networking", "--hide-scrollbars"]
    command = [program, *options, f"--user-data-dir={folder}", "--remote-debugging-port=0", "about:blank"]
    process = await trio.lowlevel.open_process(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    try:
        with trio.fail_after(LIMIT):
            said = b""
            while not (found := re.search(rb"DevTools listening on (ws://\S+)\n", said)):
                piece = await process.stderr.receive_some()
                assert piece, said.decode()
                said += piece
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_drain, process.stderr)
            async with trio_websocket.open_websocket_url(found[1].decode(), max_message_size=1 << 26) as websocket:
                browser = Browser(websocket)
                created = await browser.call("Target.createTarget", url="about:blank")
                attached = await browser.call("Target.attachToTarget", targetId=created["targetId"], flatten=True)
                browser._session = attached["sessionId"]
                for domain in ("Page", "Runtime", "Log", "Network"):
                    await browser.call(f"{domain}.enable")
                yield browser
            nursery.cancel_scope.cancel()
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            await process.stderr.aclose()


async def _drain(stream: trio.abc.ReceiveStream) -> None:
    """So that it never waits for somebody who reads what it complains of."""
    async for _ in stream:
        pass
