"""A headless Chromium and one page in it, driven over the DevTools protocol.

What the page does wrong is kept while it runs: errors in the console, exceptions, refused
policies (`problems`), and every address that it asks for (`requests`).

Needs: websockets 15, and `chromium` on the path (Debian: apt install chromium).
"""

import asyncio
import base64
import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

import websockets

KEYS = {
    "Enter": ("Enter", 13, "\r"),
    "Escape": ("Escape", 27, None),
    "Tab": ("Tab", 9, None),
    "ArrowUp": ("ArrowUp", 38, None),
    "ArrowRight": ("ArrowRight", 39, None),
}
ALT, SHIFT = 1, 8


class Browser:
    """`async with Browser() as page`; the browser and its profile go at the end."""

    def __init__(self, binary="chromium"):
        self.binary = shutil.which(binary) or binary

    async def __aenter__(self):
        self.profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        flags = ["--headless=new", "--remote-debugging-port=0", f"--user-data-dir={self.profile.name}",
                 "--no-sandbox", "--no-first-run", "--disable-gpu", "--disable-background-networking",
                 "--force-color-profile=srgb", "--hide-scrollbars", "about:blank"]
        self.process = subprocess.Popen([self.binary, *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        port = await self._port()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json") as answer:
            target = next(target for target in json.load(answer) if target["type"] == "page")
        self.socket = await websockets.connect(target["webSocketDebuggerUrl"], max_size=None)
        self.page = Page(self.socket)
        await self.page.start()
        return self.page

    async def __aexit__(self, *_):
        self.page.listener.cancel()
        await self.socket.close()
        self.process.terminate()
        self.process.wait(10)
        self.profile.cleanup()

    async def _port(self):
        file = Path(self.profile.name) / "DevToolsActivePort"
        for _ in range(600):
            if file.exists() and file.read_text().strip():
                return int(file.read_text().split()[0])
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.binary} ended with {self.process.returncode}")
            await asyncio.sleep(0.1)
        raise TimeoutError("Chromium does not start")


class Page:
    """See the module."""

    def __init__(self, socket):
        self.socket = socket
        self.answers = {}
        self.problems, self.requests = [], []
        self.loaded = asyncio.Event()

    async def start(self):
        self.listener = asyncio.create_task(self._listen())
        for domain in ("Page", "Runtime", "Network", "Log"):
            await self.call(f"{domain}.enable")

    async def _listen(self):
        async for text in self.socket:
            message = json.loads(text)
            if "id" in message:
                self.answers.pop(message["id"]).set_result(message)
            else:
                self._take(message["method"], message["params"])

    def _take(self, method, params):
        if method == "Page.loadEventFired":
            self.loaded.set()
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.problems.append(details.get("exception", {}).get("description", details["text"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.problems.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.problems.append(" ".join(str(arg.get("value", arg.get("description"))) for arg in params["args"]))

    async def call(self, method, **params):
        number = len(self.answers) + int(time.monotonic_ns() % 1_000_000_000)
        self.answers[number] = asyncio.get_running_loop().create_future()
        answer = self.answers[number]
        await self.socket.send(json.dumps({"id": number, "method": method, "params": params}))
        message = await asyncio.wait_for(answer, 60)
        if "error" in message:
            raise RuntimeError(f"{method}: {message['error']['message']}")
        return message["result"]

    async def open(self, url):
        self.loaded.clear()
        await self.call("Page.navigate", url=url)
        await asyncio.wait_for(self.loaded.wait(), 60)

    async def eval(self, expression):
        """The value of a JavaScript expression; a promise is waited for."""
        result = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(result["exceptionDetails"]["exception"].get("description", expression))
        return result["result"].get("value")

    async def until(self, expression, seconds=60):
        """Waits until an expression is true, or an element there is."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if await self.eval(f"!!({expression})"):
                return
            await asyncio.sleep(0.05)
        raise TimeoutError(f"not within {seconds} s: {expression}")

    async def key(self, key, modifiers=0):
        """A press of a key: a name of `KEYS`, or a letter (with ALT: a shortcut)."""
        if key in KEYS:
            name, number, text = KEYS[key]
            event = {"key": name, "code": name, "windowsVirtualKeyCode": number, "modifiers": modifiers}
            if text:
                event["text"] = text
        else:
            code = "Slash" if key == "/" else f"Key{key.upper()}"
            event = {"key": key, "code": code, "windowsVirtualKeyCode": ord(key.upper()), "modifiers": modifiers}
        await self.call("Input.dispatchKeyEvent", type="keyDown" if "text" in event else "rawKeyDown", **event)
        event.pop("text", None)
        await self.call("Input.dispatchKeyEvent", type="keyUp", **event)

    async def type(self, text):
        await self.call("Input.insertText", text=text)

    async def media(self, width=1440, height=900, scale=1, **features):
        """Size of the window, and features such as `prefers_color_scheme="dark"`."""
        await self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=False)
        named = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        await self.call("Emulation.setEmulatedMedia", features=named)

    async def screenshot(self, path):
        image = await self.call("Page.captureScreenshot", format="png")
        Path(path).write_bytes(base64.b64decode(image["data"]))
