"""The page on 127.0.0.1, and the engine behind it: frames come in by a websocket, faces with answers go back.

A frame lives as long as its answer takes. Nothing is written, logged or sent elsewhere.
"""

import asyncio
import base64
import json
import math
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from aiohttp import WSCloseCode, WSMsgType, web

from engrec.faces.track import Tracker, is_cut
from engrec.machine import local_server
from engrec.use.follow import Shot
from engrec.use.page import contents
from engrec.use.predict import Predictor

HEAD = 24  # bytes before the pixels in RGB: seconds (NaN: a picture), width, height, as float64
MOST_PIXELS = 4096 * 4096
RESTART = "restart"


class Server:
    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        self.computing = ThreadPoolExecutor(1, "computing")

    def app(self) -> web.Application:
        app = local_server.guarded(local_server.LOOPBACK, contents.POLICY)
        app.router.add_get("/frames", self.frames, allow_head=False)
        app.router.add_get("/{name:|[a-z]+\\.(?:css|js|json)}", self.part, allow_head=False)
        return app

    async def part(self, request: web.Request) -> web.Response:
        """The page, its style, one of its scripts, or what these are told."""
        name = request.match_info["name"]
        if not name:
            text = contents.page(self.predictor.answerer, "local")
            return web.Response(text=text, content_type="text/html")
        if name == contents.ABOUT:
            text = contents.about(self.predictor.answerer, "local")
            return web.Response(text=text, content_type="application/json")
        if name not in contents.files():
            raise web.HTTPNotFound
        kind = "text/css" if name == contents.STYLE else "text/javascript"
        return web.Response(text=contents.files()[name], content_type=kind)

    async def frames(self, request: web.Request) -> web.WebSocketResponse:
        """A websocket for one page. Browsers let any page open one to here: only this server's own page may."""
        if request.headers.get("Origin") != f"http://{request.headers['Host']}":
            raise web.HTTPForbidden(text="only the page of this server may send frames\n")
        page = web.WebSocketResponse(compress=False, max_msg_size=HEAD + 3 * MOST_PIXELS + 1)
        await page.prepare(request)
        session = Session(self.predictor)
        async for message in page:
            if message.type is WSMsgType.BINARY:
                answer = await asyncio.get_running_loop().run_in_executor(self.computing, session.answer, message.data)
                await page.send_str(answer)
            elif message.data == RESTART:
                session = Session(self.predictor)
            else:
                await page.close(code=WSCloseCode.POLICY_VIOLATION)
        return page


class Session:
    """One picture, or one video or camera, whose faces are numbered by their tracks."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor, self.tracker = predictor, Tracker()
        self.before: np.ndarray | None = None
        self.seconds = 0.0

    def answer(self, message: bytes) -> str:
        """JSON with faces, or with the error."""
        try:
            seconds, rgb = frame_of(message)
            return json.dumps({"faces": self.faces(seconds, rgb)})
        except (ValueError, MemoryError) as error:
            return json.dumps({"error": f"the frame cannot be read: {error}"})

    def faces(self, seconds: float | None, rgb: np.ndarray) -> list[dict[str, Any]]:
        if seconds is None:
            shot = Shot(0, None, rgb, tuple(enumerate(self.predictor.in_photos(rgb))))
        else:
            shot = self._followed(seconds, rgb)
        [seen] = self.predictor.answerer([("", shot)])
        return [
            {
                "id": face.face_id,
                "box": face.box,
                "score": face.confidence,
                "roll": face.roll,
                "px": face.face_px,
                "crop": base64.b64encode(crop.tobytes()).decode(),
                "answers": [list(answer.probabilities.values()) for answer in face.answers],
            }
            for face, crop in zip(seen.faces, seen.crops, strict=True)
        ]

    def _followed(self, seconds: float, rgb: np.ndarray) -> Shot:
        if self.before is not None and is_cut(self.before, rgb):
            self.tracker.cut()
        self.before, self.seconds = rgb, max(seconds, self.seconds)
        found = self.predictor.in_videos(rgb)
        return Shot(0, self.seconds, rgb, tuple(zip(self.tracker(found, self.seconds), found, strict=True)))


def frame_of(message: bytes) -> tuple[float | None, np.ndarray]:
    """Seconds, None for a picture, and rgb uint8 (H, W, 3). Raises ValueError for anything else than a frame."""
    if len(message) < HEAD:
        raise ValueError(f"it has {len(message)} bytes, at least {HEAD} are needed")
    seconds, width, height = np.frombuffer(message, "<f8", 3).tolist()
    sides = f"{width:g} × {height:g}"
    if not (width.is_integer() and height.is_integer() and min(width, height) >= 1 and width * height <= MOST_PIXELS):
        raise ValueError(f"it has {sides} pixels, at most {MOST_PIXELS:,} are read")
    if len(message) != HEAD + 3 * width * height:
        raise ValueError(f"{sides} pixels in RGB do not fill {len(message) - HEAD:,} bytes")
    if math.isinf(seconds) or seconds < 0:
        raise ValueError(f"its time is {seconds:g} seconds")
    rgb = np.frombuffer(message, np.uint8, offset=HEAD).reshape(int(height), int(width), 3)
    return None if math.isnan(seconds) else seconds, rgb


def serve(predictor: Predictor, listening: socket.socket, ready: Callable[[str], None]) -> None:
    """Serve until Ctrl-C. ready is called with the address."""
    asyncio.run(_serve(Server(predictor), listening, ready))


async def _serve(server: Server, listening: socket.socket, ready: Callable[[str], None]) -> None:
    async with local_server.served(server.app(), local_server.LOOPBACK, listening) as address:
        server.computing.submit(warm, server.predictor)
        ready(address)
        await asyncio.Event().wait()


def warm(predictor: Predictor) -> None:
    """What the first frame would otherwise wait for."""
    for network in predictor.networks:
        channels, size = (1 if network.colour == "grey" else 3), network.size
        network(np.zeros((1, channels, size, size), np.uint8))
    predictor.in_videos(np.zeros((240, 320, 3), np.uint8))
