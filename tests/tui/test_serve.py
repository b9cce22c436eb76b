"""The workbench in a browser: for who brings the token first, on this machine, and nobody else."""

from __future__ import annotations

import asyncio
import re

import pytest

pytest.importorskip("textual_serve", reason="the extra `serve` is not installed")

from aiohttp import ClientSession, CookieJar
from aiohttp.test_utils import unused_port
from aiohttp.web import AppRunner, TCPSite
from textual_serve.server import Server

from lmplay_tui.options import Options
from lmplay_tui.serve import Gate, command_line, make_application


def test_only_the_first_browser_with_the_token_gets_in() -> None:
    async def main() -> None:
        port = unused_port()
        here = f"http://127.0.0.1:{port}"
        gate = Gate(f"127.0.0.1:{port}")
        address = f"{here}/?token={gate.token}"
        runner = AppRunner(make_application(Server("true", host="127.0.0.1", port=port), gate))
        await runner.setup()
        await TCPSite(runner, "127.0.0.1", port).start()
        try:
            async with ClientSession(cookie_jar=CookieJar(unsafe=True)) as own, ClientSession() as other:

                async def status(session: ClientSession, url: str, **headers: str) -> int:
                    async with session.get(url, headers=headers) as answer:
                        return answer.status

                assert await status(other, here) == 403
                assert await status(other, f"{here}/?token=guessed") == 403
                assert await status(other, address, Host="elsewhere") == 403
                async with own.get(address) as answer:
                    assert answer.status == 200
                    assert "token" not in str(answer.url)  # in no history and no referrer
                    page = await answer.text()
                asked = set(re.findall(r"\b(?:href|src)=.(https?://[^/]*)", page))
                assert asked == {here}  # no other host is asked for anything
                assert "keys.focus()" in page
                assert await status(own, here) == 200
                assert await status(other, address) == 403
                assert await status(other, f"{here}/ws") == 403
                assert await status(own, here, Origin="http://evil.example") == 403
        finally:
            await runner.cleanup()

    asyncio.run(main())


def test_what_was_asked_of_the_workbench_holds_in_the_browser_too() -> None:
    line = command_line(Options(readonly=True, theme="lmplay-light", fps=1.0))
    assert "--readonly" in line
    assert "--theme lmplay-light" in line
    assert "--fps 1" in line
    assert "--ascii" not in line
    assert "--ascii --no-mouse" in command_line(Options(ascii=True, mouse=False))
