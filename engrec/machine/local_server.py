"""A web server for browsers on this machine: which names it answers to, and what every answer forbids the page."""

import ipaddress
import logging
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.log import server_logger

LOOPBACK = "127.0.0.1"
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def guarded(host: str, policy: str) -> web.Application:
    """An application that answers only requests to the names of this machine: a foreign page may have a name that
    resolves to this machine (DNS rebinding). host: that it listens on; policy: Content-Security-Policy of all answers,
    refusals too."""
    headers = HEADERS | {"Content-Security-Policy": f"{policy}; frame-ancestors 'none'"}

    @web.middleware
    async def guard(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if not allowed(request.headers.get("Host", ""), host):
            raise web.HTTPForbidden(text="this page does not answer to this host name\n")
        return await handler(request)

    async def protect(_: web.Request, response: web.StreamResponse) -> None:
        response.headers.update(headers)

    app = web.Application(middlewares=[guard])
    app.on_response_prepare.append(protect)
    return app


def allowed(header: str, host: str) -> bool:
    """Whether a Host header is a name of this machine."""
    name = re.sub(r":\d{1,5}$", "", header).strip("[]").lower()
    if name in {"localhost", "127.0.0.1", "::1"}:
        return True
    if is_loopback(host):
        return False
    with suppress(ValueError):
        return ipaddress.ip_address(name) is not None
    return name in {host.lower(), socket.gethostname().lower(), socket.getfqdn().lower()}


def is_loopback(host: str) -> bool:
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host.lower() == "localhost"


def bound(host: str, port: int) -> socket.socket:
    """A listening socket. Raises ValueError where the port is taken."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        why = str(error.strerror).partition(" (while")[0]
        raise ValueError(
            f"cannot serve on {host}:{port} ({why}): use another --port, or --port 0 for any free one"
        ) from error


@asynccontextmanager
async def served(app: web.Application, host: str, listening: socket.socket) -> AsyncIterator[str]:
    """The application at work; gives its address."""
    server_logger.addFilter(is_ours)
    # A page that is open would be waited for, a minute long.
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.SockSite(runner, listening).start()
        named = socket.getfqdn() if host in ("0.0.0.0", "::", "") else host
        name = f"[{named}]" if ":" in named else named
        yield f"http://{name}:{listening.getsockname()[1]}/"
    finally:
        await runner.cleanup()


def is_ours(record: logging.LogRecord) -> bool:
    """Whether a message is about the server: what is no HTTP has been answered with 400, and needs no traceback."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))
