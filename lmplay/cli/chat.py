"""`lmplay chat`: talk to a trained model in the terminal. The model runs in an engine beside it; no torch here."""

from __future__ import annotations

import shutil
import signal
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import IO, TYPE_CHECKING

import typer

from lmplay.cli.generate import COMPILE_HELP, sampling_option, visible
from lmplay.generate.chat import SEPARATOR
from lmplay.generate.config import sampling_config
from lmplay.utils.errors import LMPlayError
from lmplay.utils.paths import cache_root

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession

    from lmplay.generate.chat import Chat

REDRAWS_PER_SECOND = 12


def register(app: typer.Typer) -> None:
    app.command("chat")(chat_command)


def chat_command(
    checkpoint: str = typer.Argument(
        help="A run (its newest checkpoint, or RUN@best, RUN@STEP), or the folder of a checkpoint."
    ),
    max_tokens: int = sampling_option("max_tokens", "--max-tokens"),
    temperature: float = sampling_option("temperature", "--temperature"),
    top_k: int = sampling_option("top_k", "--top-k"),
    top_p: float = sampling_option("top_p", "--top-p"),
    min_p: float = sampling_option("min_p", "--min-p"),
    repetition_penalty: float = sampling_option("repetition_penalty", "--repetition-penalty"),
    seed: int = sampling_option("seed", "--seed"),
    stop: list[str] = typer.Option(
        None, "--stop", help="End an answer before this string; may be given several times."
    ),
    template: str = typer.Option(
        "auto",
        "--template",
        help="What the model is given of a message: auto is what it was trained with, plain the bare message, messages "
        "'User: ... Assistant:'; or a text of yours with {} for the message, as 'Q: {}\\nA:'.",
    ),
    device: str = typer.Option("auto", "--device", help="Where to compute: auto, cpu, cuda or cuda:0."),
    weights: str = typer.Option(
        "auto", "--weights", help="auto is the fastest kind for the device; or float32, bfloat16, int8."
    ),
    compiled: bool = typer.Option(False, "--compile", help=COMPILE_HELP),
) -> None:
    """Talk to a trained model. /help lists what can be changed on the way; ctrl+c stops an answer, ctrl+d leaves."""
    from lmplay.generate.chat import Chat, megabytes
    from lmplay.generate.client import Engine
    from lmplay.generate.template import PLAIN, named_template
    from lmplay.runs import resolve_checkpoint

    resolve_checkpoint(checkpoint)  # a wrong name is told before an engine is started for it
    settings = sampling_config(
        max_tokens=max_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        seed=seed,
        stop=tuple(stop or ()),
    )
    interactive = sys.stdin.isatty() and sys.stdout.isatty()
    screen = TerminalScreen(interactive=interactive)
    with Interrupts() as interrupts:
        chat = Chat(
            Engine(checkpoint, device=device, weights=weights, compile=compiled),
            screen,
            settings,
            template=named_template(template),
            interrupted=interrupts.count,
        )
        try:
            screen.say(f"loading {checkpoint} ...")
            chat.start()
            facts = chat.speaker.engine.facts
            screen.say(
                f"{chat.speaker.title} on {facts['device']}: {facts['weights']} weights, "
                f"{megabytes(facts['weight_bytes'])} read a token, {facts['max_len']} tokens of context in a cache of "
                f"{megabytes(facts['cache_bytes'])}"
            )
            if (form := chat.speaker.conversation.template.form) != PLAIN.form:
                screen.say(f"messages reach the model as {form!r}; --template plain sends them bare")
            if facts["not_compiled"] is not None:
                screen.say(f"not compiled: {facts['not_compiled']}")
            if interactive:
                screen.say(
                    "/help lists the commands; alt+enter begins a new line; ctrl+c stops an answer; ctrl+d leaves"
                )
            _converse(chat, screen, _prompt_session(chat) if interactive else None, interrupts)
        finally:
            chat.close()


def _converse(chat: Chat, screen: TerminalScreen, session: PromptSession[str] | None, interrupts: Interrupts) -> None:
    from lmplay.generate.chat import Quit

    while True:
        try:
            text = input() if session is None else session.prompt()
            with interrupts.counted(), without_echo(sys.stdin):
                chat.enter(text)
        except (EOFError, Quit):
            return
        except KeyboardInterrupt:  # at the prompt it drops what was typed
            if session is None:
                raise
        except LMPlayError as error:
            screen.say(f"error: {error}")
        screen.end_answer()


def _prompt_session(chat: Chat) -> PromptSession[str]:
    """The line editor: history between sessions, several lines, pasting, completion of commands, the footer."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.auto_suggest import AutoSuggestFromHistory
    from prompt_toolkit.completion import WordCompleter
    from prompt_toolkit.history import FileHistory
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

    from lmplay.generate.chat import ALIASES, COMMANDS
    from lmplay.generate.config import SamplingConfig

    bindings = KeyBindings()

    @bindings.add("enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    @bindings.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    history = cache_root() / "chat_history"
    history.parent.mkdir(parents=True, exist_ok=True)
    names = [f"/{name}" for name in sorted({*COMMANDS, *ALIASES, *SamplingConfig.model_fields})]
    return PromptSession(
        "> ",
        multiline=True,  # so that pasted line breaks are text; `enter` is bound to send
        key_bindings=bindings,
        history=FileHistory(history),
        auto_suggest=AutoSuggestFromHistory(),
        completer=WordCompleter(names, sentence=True),
        complete_while_typing=True,
        bottom_toolbar=lambda: fitted(chat.footer()),
        prompt_continuation="  ",
        reserve_space_for_menu=4,
    )


class Interrupts:
    """Counts ctrl+c while an answer runs, instead of raising in the middle of anything."""

    def __init__(self) -> None:
        self._count = 0

    def count(self) -> int:
        return self._count

    def __enter__(self) -> Interrupts:
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)

    @contextmanager
    def counted(self) -> Iterator[None]:
        def count(_: int, __: FrameType | None) -> None:
            self._count += 1

        self._count = 0
        before = signal.signal(signal.SIGINT, count)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


@contextmanager
def without_echo(terminal: IO[str]) -> Iterator[None]:
    """What is typed ahead while an answer streams waits for the prompt, and is not written into the answer."""
    try:
        import termios
    except ImportError:  # on Windows
        termios = None  # type: ignore[assignment]
    if termios is None or not terminal.isatty():
        yield
        return
    before = termios.tcgetattr(terminal.fileno())
    silent = termios.tcgetattr(terminal.fileno())
    silent[3] &= ~termios.ECHO
    termios.tcsetattr(terminal.fileno(), termios.TCSADRAIN, silent)
    try:
        yield
    finally:
        termios.tcsetattr(terminal.fileno(), termios.TCSADRAIN, before)


class TerminalScreen:
    """Answers on standard output as they come; what is said about the chat is dim, or on standard error in a pipe."""

    def __init__(self, *, interactive: bool) -> None:
        self._interactive = interactive
        self._open = False  # the cursor stands behind a part of an answer

    def write(self, text: str) -> None:
        sys.stdout.write(visible(text))
        sys.stdout.flush()
        self._open = True

    def say(self, line: str) -> None:
        self.end_answer()
        if self._interactive:
            width = shutil.get_terminal_size().columns
            typer.secho(wrapped(visible(line), width), dim=True)
        else:
            typer.echo(line, err=True)

    def end_answer(self) -> None:
        if self._open:
            sys.stdout.write("\n")
            sys.stdout.flush()
            self._open = False

    def side_by_side(self, titles: Sequence[str], answers: Sequence[Callable[[Callable[[str], None]], None]]) -> None:
        from rich.console import Console
        from rich.live import Live
        from rich.table import Table
        from rich.text import Text

        texts = ["" for _ in titles]
        failures: list[LMPlayError] = []

        def run(index: int) -> None:
            def write(part: str) -> None:
                texts[index] += visible(part)

            try:
                answers[index](write)
            except LMPlayError as error:
                failures.append(error)

        def table(limit: int | None = None) -> Table:
            grid = Table(expand=True, show_lines=False)
            for title in titles:
                grid.add_column(title, ratio=1, overflow="fold")
            width = max(8, shutil.get_terminal_size().columns // len(titles) - 4)
            cells = [text if limit is None else _last_lines(text, limit, width) for text in texts]
            grid.add_row(*map(Text, cells))
            return grid

        threads = [threading.Thread(target=run, args=(index,), daemon=True) for index in range(len(answers))]
        for thread in threads:
            thread.start()
        console = Console()
        if self._interactive:
            lines = max(3, shutil.get_terminal_size().lines - 6)
            with Live(table(lines), console=console, transient=True, refresh_per_second=REDRAWS_PER_SECOND) as live:
                while any(thread.is_alive() for thread in threads):
                    threads[0].join(1 / REDRAWS_PER_SECOND)
                    threads[-1].join(1 / REDRAWS_PER_SECOND)
                    live.update(table(lines))
        for thread in threads:
            thread.join()
        console.print(table())
        if failures:
            raise failures[0]


def wrapped(line: str, width: int) -> str:
    """Broken between words; the line's own leading spaces stay, and no later one begins with any."""
    first, *others = textwrap.wrap(line, width, drop_whitespace=False) or [""]
    return "\n".join([first.rstrip(), *(part.strip() for part in others if part.strip())])


def _last_lines(text: str, limit: int, width: int) -> str:
    """The end of `text` that fits into so many lines of that width."""
    lines = [line[start : start + width] for line in text.split("\n") for start in range(0, max(1, len(line)), width)]
    return "\n".join(lines[-limit:])


def fitted(footer: str) -> str:
    """Broken between its parts into as many lines as the terminal's width asks for."""
    width = shutil.get_terminal_size().columns
    lines = [""]
    for part in footer.split(SEPARATOR):
        joined = f"{lines[-1]}{SEPARATOR}{part}" if lines[-1] else part
        if len(joined) <= width or not lines[-1]:
            lines[-1] = joined
        else:
            lines.append(part)
    return "\n".join(lines)
