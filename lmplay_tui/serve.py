"""`lmplay-tui --serve`: the same workbench in a browser, through textual-serve, for this machine and one person only.

The address holds a token that works once: the browser that brings it gets a cookie, and nobody else gets anything.
Requests that name another host, or come from another page, are refused too; the page asks nothing of any other host.
"""

from __future__ import annotations

import re
import secrets
import shlex
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp_jinja2
import jinja2
from aiohttp import web
from textual_serve.server import Server

from lmplay_tui.options import Options

_HOST = "127.0.0.1"
_COOKIE = "lmplay-session"

_REFUSED = (
    "This address works once, in the browser that opened it first. "
    "End lmplay-tui --serve with ctrl+c and start it anew for another address."
)
_ELSEWHERE = re.compile(r'<link\b[^>]*\bhref="https://[^>]*>')
# The page's terminal takes keys when it has the focus, which it would get by a click only.
_FOCUS = """<script>
  const waiting = setInterval(() => {
    const keys = document.querySelector("textarea.xterm-helper-textarea");
    if (keys) { clearInterval(waiting); keys.focus(); }
  }, 50);
</script>"""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Gate:
    """Lets in who brings the token first, and that browser from then on."""

    def __init__(self, host: str) -> None:
        self.token: str | None = secrets.token_urlsafe(24)
        self._session = secrets.token_urlsafe(24)
        self._host = host

    def admits(self, request: web.Request) -> bool:
        cookie = request.cookies.get(_COOKIE, "")
        return secrets.compare_digest(cookie.encode(), self._session.encode())

    def from_here(self, request: web.Request) -> bool:
        """Not through another name of this machine, nor from another page."""
        origin = request.headers.get("Origin")
        return request.host == self._host and origin in (None, f"http://{self._host}")

    def redeem(self, token: str) -> str | None:
        """The session for a token that was not used yet."""
        if self.token is None or not secrets.compare_digest(token.encode(), self.token.encode()):
            return None
        self.token = None
        return self._session


def own_page(page: str) -> str:
    """textual-serve's page, but without the font that it fetches from another host, and taking keys at once."""
    return _ELSEWHERE.sub("", page).replace("</body>", f"{_FOCUS}</body>")


def make_application(server: Server, gate: Gate) -> web.Application:
    """textual-serve's handlers behind the gate."""

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not gate.from_here(request):
            raise web.HTTPForbidden(text="Open the address that lmplay-tui --serve printed.")
        if gate.admits(request):
            response = await handler(request)
            if request.path == "/" and isinstance(response, web.Response) and response.text is not None:
                response.text = own_page(response.text)
            return response
        session = gate.redeem(request.query.get("token", "")) if request.path == "/" else None
        if session is None:
            raise web.HTTPForbidden(text=_REFUSED)
        # The token leaves the address, so that it is in no history and no referrer.
        answer = web.HTTPSeeOther("/")
        answer.set_cookie(_COOKIE, session, httponly=True, samesite="Strict")
        raise answer

    application = web.Application(middlewares=[guarded])
    aiohttp_jinja2.setup(application, loader=jinja2.FileSystemLoader(server.templates_path))
    application.add_routes(
        [
            web.get("/", server.handle_index, name="index"),
            web.get("/ws", server.handle_websocket, name="websocket"),
            web.get("/download/{key}", server.handle_download, name="download"),
            web.static("/static", server.statics_path, name="static"),
        ]
    )
    return application


def command_line(options: Options) -> str:
    """The command that textual-serve starts for the browser: this workbench, with what was asked of it."""
    parts = [sys.executable, "-m", "lmplay_tui"]
    parts += [options.open] if options.open is not None else []
    parts += ["--runs", str(options.runs)] if options.runs is not None else []
    parts += ["--readonly"] if options.readonly else []
    parts += ["--theme", options.theme] if options.theme is not None else []
    parts += ["--ascii"] * options.ascii + ["--no-mouse"] * (not options.mouse)
    parts += ["--fps", f"{options.fps:g}"]
    return shlex.join(parts)


def serve_workbench(options: Options) -> None:
    """Serve until ctrl+c."""
    with socket.create_server((_HOST, options.port)) as listening:
        port = listening.getsockname()[1]
        server: Any = Server(command_line(options), host=_HOST, port=port, title="lmplay")
        gate = Gate(f"{_HOST}:{port}")
        print(f"Open http://{_HOST}:{port}/?token={gate.token}")  # noqa: T201
        print(f"From elsewhere: ssh -L {port}:{_HOST}:{port} THIS-MACHINE, then the same address. Ends with ctrl+c.")  # noqa: T201
        web.run_app(make_application(server, gate), sock=listening, print=None)
