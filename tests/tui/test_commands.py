"""Commands in processes of their own: their values as they come, and what is said of those that fail or are killed."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from lmplay_tui.services.commands import CommandError, Commands


class Scripted(Commands):
    """Runs a piece of Python in place of a command."""

    async def _start(
        self, arguments: Sequence[str], environment: Mapping[str, str] | None
    ) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", arguments[0], stdin=DEVNULL, stdout=PIPE, stderr=PIPE, start_new_session=True
        )
        self._running.add(process)
        return process


def values_of(script: str) -> list[Any]:
    async def main() -> list[Any]:
        commands = Scripted()
        try:
            return [value async for value in commands.stream(script)]
        finally:
            await commands.close()

    return asyncio.run(main())


def test_values_come_a_line_each_and_a_check_that_fails_has_told_all() -> None:
    assert values_of("print('1'); print('{\"ok\": false}'); raise SystemExit(1)") == [1, {"ok": False}]


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("import os; print('1', flush=True); os.kill(os.getpid(), 9)", "ended by SIGKILL"),
        ("import sys; sys.exit('Traceback\\nlmplay: there is no such plan')", "there is no such plan"),
        ("raise SystemExit(3)", "ended with status 3"),
        ("print('no json')", "printed something that is no JSON"),
    ],
)
def test_what_fails_or_is_killed_says_why_in_one_line(script: str, said: str) -> None:
    with pytest.raises(CommandError, match=said):
        values_of(script)


def test_a_refusal_that_a_command_prints_is_told_as_one_that_it_complains_of() -> None:
    script = 'print("These runs can\'t be compared: they differ."); raise SystemExit(1)'
    with pytest.raises(CommandError, match=r"^These runs can't be compared: they differ\.$"):
        asyncio.run(Scripted().run(script))
