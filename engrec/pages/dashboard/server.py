"""The server: answers GET of a few paths, by default to browsers on this machine only."""

import asyncio
import re
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from aiohttp import web

from engrec.machine import local_server
from engrec.pages import page
from engrec.pages.dashboard import html
from engrec.pages.dashboard.answers import Details
from engrec.pages.dashboard.records import Outputs

LOOK = 1.0  # seconds between scans of the folder, at least; a slow folder is scanned less often
WARM = 3.0  # seconds after the first scan, when the page has what it shows first
LIGHT = ("history", "texts")  # questions that do not wait behind slow ones
KEY = re.compile(r"[0-9a-f]{16}(\+[0-9a-f]{16})?|all")


class Server:
    """What is known of the folder, brought up to date on request."""

    def __init__(self, root: Path, host: str, all_faces: bool) -> None:
        self.root, self.host = root, host
        self.outputs = Outputs(root)
        self.details = Details(self.outputs, all_faces)
        self.looking = ThreadPoolExecutor(1, "looking")
        self.computing = ThreadPoolExecutor(1, "computing")
        self.next, self.error = 0.0, ""
        self.lock = asyncio.Lock()

    def app(self) -> web.Application:
        app = local_server.guarded(self.host, page.policy("'self'"))
        app.router.add_get("/{name:|[a-z]+\\.(?:css|js)}", self.part, allow_head=False)
        app.router.add_get("/api/state", self.state, allow_head=False)
        app.router.add_get("/api/{question:[a-z]+}/{key}", self.answer, allow_head=False)
        return app

    async def part(self, request: web.Request) -> web.Response:
        """The page, its style or one of its scripts."""
        name = request.match_info["name"]
        if name in html.scripts():
            return web.Response(text=html.scripts()[name], content_type="text/javascript")
        if name == "style.css":
            return web.Response(text=html.style(), content_type="text/css")
        if name:
            raise web.HTTPNotFound
        return web.Response(text=html.served(), content_type="text/html")

    async def state(self, request: web.Request) -> web.Response:
        since, token = request.query.get("since", "0"), request.query.get("token", "")
        await self.look()
        version = int(since) if since.isascii() and since.isdecimal() and len(since) < 16 else 0
        state = self.outputs.since(version, token) | {"root": str(self.root), "error": self.error}
        return web.json_response(state, dumps=html.compact)

    async def look(self) -> None:
        """Bring the records up to date, in a thread of its own; concurrent requests wait for the same scan."""
        async with self.lock:
            started = time.monotonic()
            if started < self.next:
                return
            try:
                await asyncio.get_running_loop().run_in_executor(self.looking, self.outputs.scan)
                self.error = ""
            except OSError as error:
                self.outputs.forget()
                self.error = f"{self.root}: {error.strerror}"
            now = time.monotonic()
            self.next = now + max(LOOK, 4 * (now - started))

    async def answer(self, request: web.Request) -> web.Response:
        question, key = request.match_info["question"], request.match_info["key"]
        if question not in self.details.questions or not KEY.fullmatch(key):
            raise web.HTTPNotFound
        if not self.outputs.version:
            await self.look()
        thread = self.looking if question in LIGHT else self.computing
        try:
            answer = await asyncio.get_running_loop().run_in_executor(
                thread, lambda: html.compact(self.details.answer(question, key))
            )
        except KeyError:
            raise web.HTTPNotFound from None
        return web.Response(text=answer, content_type="application/json")


def serve(root: Path, host: str, port: int, all_faces: bool, ready: Callable[[str], None]) -> None:
    """Serve until Ctrl-C. ready is called with the address."""
    asyncio.run(_serve(Server(root, host, all_faces), local_server.bound(host, port), ready))


async def _serve(server: Server, listening: socket.socket, ready: Callable[[str], None]) -> None:
    try:
        async with local_server.served(server.app(), server.host, listening) as address:
            ready(address)
            await server.look()
            await asyncio.sleep(WARM)
            server.computing.submit(warm)
            await asyncio.Event().wait()
    finally:
        server.looking.shutdown(wait=False, cancel_futures=True)
        server.computing.shutdown(wait=False, cancel_futures=True)


def warm() -> None:
    """Import what the first page of a run would otherwise wait for: torch and scikit-learn take seconds."""
    import torch

    from engrec.pages import report  # noqa: F401

    torch.set_num_threads(1)
