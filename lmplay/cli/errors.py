"""One style of ending for every command: the exit status, and errors in one line that says what to do.

0 done, 1 failed, 2 wrong usage, 130 interrupted. `--debug` (anywhere on the line) or LMPLAY_DEBUG=1 shows the
traceback, which otherwise goes to a log when the error is none that was meant for people.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import typer
from typer.exceptions import TyperException

from lmplay.utils.errors import LMPlayError
from lmplay.utils.names import nearest
from lmplay.utils.paths import cache_root


def run_app(app: typer.Typer, name: str, arguments: Sequence[str]) -> int:
    """Run `app` on `arguments`; returns the exit status, having printed at most one line to standard error."""
    arguments, debug = _take_debug(arguments)
    try:
        status = _call(app, name, arguments)
        sys.stdout.flush()
    except TyperException as error:
        return _say(name, _usage_message(error), 2)
    except LMPlayError as error:
        if debug:
            traceback.print_exc()
        return _say(name, str(error), error.exit_status)
    except (KeyboardInterrupt, typer.Abort):
        return _say(name, "interrupted", 130)
    except BrokenPipeError:
        # The reader of our output has gone (`lmplay list | head -1`): nothing is wrong, and nobody is there to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # noqa: BLE001 - the last resort of the process
        if debug:
            traceback.print_exc()
            return 1
        hint = _log_traceback()
        return _say(
            name, f"unexpected {type(error).__name__}: {_one_line(str(error))} ({hint}--debug shows the place)", 1
        )
    return status if isinstance(status, int) else 0


def _take_debug(arguments: Sequence[str]) -> tuple[list[str], bool]:
    end = arguments.index("--") if "--" in arguments else len(arguments)
    kept = [argument for place, argument in enumerate(arguments) if argument != "--debug" or place > end]
    return kept, len(kept) < len(arguments) or os.environ.get("LMPLAY_DEBUG") == "1"


def _call(app: typer.Typer, name: str, arguments: Sequence[str]) -> object:
    try:
        return app(arguments, standalone_mode=False, prog_name=name)
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # Typer would end with 1, as if something had failed
            raise error.__context__ from None
        raise
    except TyperException as error:
        context = getattr(error, "ctx", None)
        if context is None or str(error) != context.get_help():
            raise
        print(error)  # noqa: T201 (a group was called without a command: the "error" is its help)
        return 0


def _usage_message(error: TyperException) -> str:
    format_message = getattr(error, "format_message", None)
    message = format_message() if format_message is not None else str(error)
    context = getattr(error, "ctx", None)
    option = getattr(error, "option_name", None)
    if option is not None and hasattr(error, "possibilities") and context is not None:
        known = [name.lstrip("-") for parameter in context.command.params for name in parameter.opts if name[0] == "-"]
        near = [
            f"--{name.replace('_', '-')}"
            for name in nearest(option.lstrip("-"), [name.replace("-", "_") for name in known])
        ]
        message = f"no such option: {option}" + (f"; did you mean {' or '.join(near)}?" if near else "")
    command = context.command_path if context is not None else None
    return f"{_one_line(message)} ({command} --help shows what there is)" if command else _one_line(message)


def _say(name: str, message: str, status: int) -> int:
    print(f"{name}: {_one_line(message)}", file=sys.stderr)  # noqa: T201
    return status


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _log_traceback() -> str:
    """Append the traceback to lmplay's log; the beginning of a hint that names it, or nothing where it can't be
    written.
    """
    log: Path = cache_root() / "errors.log"
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8") as file:
            file.write(f"{' '.join(sys.argv)}\n{traceback.format_exc()}\n")
    except OSError:
        return ""
    return f"traceback in {log}; "
