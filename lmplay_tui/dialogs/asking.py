"""Small dialogs: a text to type, a question, a name to type before something is lost. None is taller than 24 rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.widgets.input import Selection

from lmplay.utils.errors import LMPlayError
from lmplay_tui.actions import bindings_for
from lmplay_tui.dialogs.modal import Modal
from lmplay_tui.lines import Line, line, wrapped
from lmplay_tui.widgets.bars import KeyBar
from lmplay_tui.widgets.fields import Field
from lmplay_tui.widgets.grid import Grid, Row
from lmplay_tui.widgets.text_view import TextView

_WIDTH = 64


class Dialog(Modal[str | None]):
    """A box in the middle; escape gives None."""

    DEFAULT_CSS = """
    Dialog { align: center middle; background: $background 55%; }
    Dialog > Vertical {
        width: 68; max-width: 98%; height: auto; max-height: 22; padding: 0 1;
        background: $surface; border: round $primary; border-title-color: $primary; border-title-style: bold;
    }
    Dialog > Vertical.-danger { border: round $error; border-title-color: $error; }
    Dialog TextView { height: auto; max-height: 14; }
    Dialog Field { margin: 1 0 0 0; background: $panel; }
    Dialog Grid { height: auto; max-height: 16; }
    """
    BINDINGS = bindings_for("dialog")

    def __init__(self, title: str, text: str = "", *, danger: bool = False) -> None:
        super().__init__()
        self._title, self._danger = title, danger
        self._text: list[Line] = wrapped(text, _WIDTH) if text else []

    def compose(self) -> ComposeResult:
        with Vertical(classes="-danger" if self._danger else None) as box:
            box.border_title = Content(self._title)
            yield TextView(self._text)
            yield from self.compose_content()
        yield KeyBar()

    def compose_content(self) -> ComposeResult:
        yield from ()

    def on_mount(self) -> None:
        self.bindings_updated_signal.subscribe(self, lambda _: self._keys())
        self.call_after_refresh(self._keys)

    def _keys(self) -> None:
        from lmplay_tui.app import Workbench

        if isinstance(self.app, Workbench):
            self.query_one(KeyBar).update_content(self.app.keymap, ascii_only=self.app.options.ascii)

    def action_cancel(self) -> None:
        self.dismiss(None)

    def action_confirm(self) -> None:
        self.dismiss("yes")


class Question(Dialog):
    """Enter gives "yes"."""


class Answer(Field):
    """The field of a dialog: enter takes what is typed."""

    HELP = "Type, then press enter; escape closes without doing anything."
    BINDINGS = bindings_for("answer")

    async def action_take(self) -> None:
        await self.action_submit()


class TextDialog(Dialog):
    """A line to type; gives it when `problem` finds nothing wrong with it (it returns what is)."""

    def __init__(
        self,
        title: str,
        text: str = "",
        *,
        value: str = "",
        selected: bool = False,
        placeholder: str = "",
        problem: Callable[[str], str] | None = None,
        danger: bool = False,
    ) -> None:
        """With `selected`, what is typed takes the place of `value`."""
        super().__init__(title, text, danger=danger)
        self._field = Answer(value, placeholder=placeholder)
        if selected:
            self._field.selection = Selection(0, len(value))
        self._problem = problem
        self._complaint = TextView()

    def compose_content(self) -> ComposeResult:
        yield self._field
        yield self._complaint

    def on_mount(self) -> None:
        super().on_mount()
        self._field.focus()

    @on(Field.Submitted)
    def _submitted(self) -> None:
        self.action_confirm()

    def action_confirm(self) -> None:
        value = self._field.value.strip()
        problem = self._problem(value) if self._problem is not None else ""
        if problem:
            self._complaint.show(wrapped(problem, _WIDTH, "bad"))
            return
        self.dismiss(value)


def complaint_of(check: Callable[[], object]) -> str:
    """What `check` raises against what is typed, in one line; nothing where it finds no fault."""
    try:
        check()
    except LMPlayError as error:
        return str(error)
    return ""


class TypedConfirmation(TextDialog):
    """What can't be undone: the name has to be typed."""

    def __init__(self, title: str, text: str, name: str) -> None:
        super().__init__(
            title,
            text,
            placeholder=name,
            problem=lambda typed: "" if typed == name else f"Type {name} to go on, or press escape.",
            danger=True,
        )


class Choices(Dialog):
    """One of a list, found by typing a part of it."""

    HELP = "Type a part of a name to find it; enter takes the one under the cursor."

    def __init__(self, title: str, choices: Sequence[tuple[str, str]], *, chosen: str = "", text: str = "") -> None:
        super().__init__(title, text)
        self._choices = tuple(choices)
        """(value, what is said of it)"""
        self._chosen = chosen
        self._field = Answer(placeholder="type to find")
        from lmplay_tui.columns import Column

        self._grid = Grid(
            (
                Column(key="name", flex=3, least=12, most=60, ends=True),
                Column(key="text", flex=2, rank=1, least=8, most=80),
            ),
            head=False,
            empty="nothing of that name",
        )

    def compose_content(self) -> ComposeResult:
        yield self._field
        yield self._grid

    def on_mount(self) -> None:
        super().on_mount()
        self.query_one(Vertical).styles.width = 100  # names and what is said of them; narrow screens cut it
        self._show()
        self._grid.styles.height = min(14, max(3, len(self._choices)))
        if self._chosen:
            self._grid.move_to(self._chosen)
        self._field.focus()

    def _show(self) -> None:
        words = self._field.value.casefold().split()
        found = [one for one in self._choices if all(word in " ".join(one).casefold() for word in words)]
        # Those whose name it is come before those of which it is only said.
        found.sort(key=lambda one: not all(word in one[0].casefold() for word in words))
        self._grid.show([Row(value, (line((value, "bold")), line((text, "muted")))) for value, text in found])

    @on(Field.Changed)
    def _typed(self) -> None:
        self._show()
        self._grid.action_first()  # what fits best is taken

    def on_key(self, event: object) -> None:
        """Up and down move the cursor of the list while one types."""
        key = getattr(event, "key", "")
        if key in ("up", "down", "pageup", "pagedown") and self.focused is self._field:
            {"up": self._grid.action_up, "down": self._grid.action_down}.get(
                key, self._grid.action_page_up if key == "pageup" else self._grid.action_page_down
            )()

    @on(Field.Submitted)
    @on(Grid.Chosen)
    def _taken(self) -> None:
        self.action_confirm()

    def action_confirm(self) -> None:
        if self._grid.cursor is not None:
            self.dismiss(self._grid.cursor)
