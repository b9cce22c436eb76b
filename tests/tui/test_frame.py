"""The frame: one table of actions, keys from a file, what is remembered, what holds on every screen."""

from __future__ import annotations

import asyncio
import gc
import json
import re
from pathlib import Path

import pytest
from textual.color import Color
from textual.notifications import Notification
from textual.pilot import Pilot
from textual.strip import Strip
from textual.theme import Theme

from lmplay.utils.errors import WrongUsageError
from lmplay_tui.actions import ACTIONS, FORBIDDEN_KEYS, SCREENS
from lmplay_tui.app import Workbench
from lmplay_tui.dialogs.asking import Question, TextDialog
from lmplay_tui.dialogs.help import help_lines
from lmplay_tui.dialogs.jump import JumpScreen
from lmplay_tui.keymap import key_list, read_keymap
from lmplay_tui.options import Options, parse_options
from lmplay_tui.pace import Pace
from lmplay_tui.state import State
from lmplay_tui.theme import DARK, LIGHT, NUM_SERIES, Palette, series_ink
from lmplay_tui.widgets.bars import KeyBar
from lmplay_tui.widgets.pane import Pane
from tests.tui.support import drive, make_app, plant_run, text_of, until_text


def test_every_action_has_a_name_a_help_and_keys_that_terminals_pass_on() -> None:
    assert len({action.id for action in ACTIONS}) == len(ACTIONS)
    for action in ACTIONS:
        assert action.title, action.id
        assert action.help.endswith((".", "running")), action.id
        keys = {key.strip() for key in action.keys.split(",")}
        assert not keys & FORBIDDEN_KEYS, action.id


def test_no_key_does_two_things_at_one_place() -> None:
    for place in {action.place for action in ACTIONS}:
        taken: dict[str, str] = {}
        for action in [action for action in ACTIONS if action.place in (place, "app")]:
            for key in action.keys.split(","):
                # Of these at most one works at a time: of a run that is paused, an answer that is being written, a
                # field that one writes in, a dialog, beside which nothing else works.
                either = action.id in ("steer.unpause", "chat.stop", "chat.leave", "chat.write", "modal.help")
                assert taken.setdefault(key, action.id) == action.id or either, key


def test_help_names_every_key_that_works_on_the_screen(tmp_path: Path) -> None:
    async def do(pilot: Pilot[None], app: Workbench) -> None:
        await until_text(pilot, "gpt2ish_med")
        text = "\n".join("".join(part for part, _ in line) for line in help_lines(app.screen, {}, 80))
        for action in ACTIONS:
            if action.place in ("app", "experiments", "grid"):
                assert action.help[:40] in text.replace("\n" + " " * 15, " "), action.id

    drive(make_app(tmp_path), do)


def test_help_opens_over_any_screen_and_closes(tmp_path: Path) -> None:
    async def do(pilot: Pilot[None], app: Workbench) -> None:
        await pilot.press("f1")
        await until_text(pilot, "Help")
        assert "On this screen" in text_of(app)
        await pilot.press("escape")
        await pilot.pause()
        assert len(app.screen_stack) == 1

    drive(make_app(tmp_path), do, size=(80, 24))


def test_the_command_palette_finds_actions_runs_and_themes(tmp_path: Path) -> None:
    plant_run(tmp_path / "runs", "wide-attempt", steps=3)

    async def do(pilot: Pilot[None], app: Workbench) -> None:
        await until_text(pilot, "gpt2ish_med")
        await pilot.press("ctrl+p", *"wide")
        await until_text(pilot, "Run: wide-attempt")
        palette = app.screen
        await palette.query("CommandList").remove()
        await pilot.press("r")  # commands are looked for while the palette goes: that ends nothing
        await pilot.pause(0.3)
        palette.dismiss()
        palette.dismiss()  # a key that was still on its way closes nothing else
        await pilot.pause()
        assert len(app.screen_stack) == 1
        await pilot.press("ctrl+p", *"ansi-dark")
        await until_text(pilot, "Theme: ansi-dark")
        await pilot.press("enter")
        await pilot.pause(0.2)
        assert app.theme == "ansi-dark"

    drive(make_app(tmp_path), do)


def test_jump_mode_goes_to_a_pane_by_its_letter(tmp_path: Path) -> None:
    async def do(pilot: Pilot[None], app: Workbench) -> None:
        await until_text(pilot, "gpt2ish_med")
        assert app.focused is not None
        assert app.focused.id == "experiments"
        await pilot.press("ctrl+o", "s")
        await pilot.pause(0.1)
        assert app.focused is not None
        assert app.focused.id == "overview"

    drive(make_app(tmp_path), do)


def test_a_theme_that_is_not_there_is_wrong_usage_and_names_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(WrongUsageError, match=r"no theme 'nope'.*ansi-light.*lmplay-dark"):
        make_app(tmp_path, theme="nope")


def test_keys_of_a_file_take_the_place_of_the_usual_ones(tmp_path: Path) -> None:
    file = tmp_path / "workbench.toml"
    file.write_text('[keys]\n"app.runs" = "f4"\n')
    app = make_app(tmp_path)
    app.keymap = read_keymap(file)
    app.set_keymap(app.keymap)

    async def do(pilot: Pilot[None], app: Workbench) -> None:
        await pilot.press("3")
        await pilot.pause(0.1)
        assert app.current_mode == "experiments"
        await pilot.press("f4")
        await pilot.pause(0.1)
        assert app.current_mode == "runs"

    drive(app, do)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[keys]\n"run.viev" = "f4"', "did you mean run.view"),
        ('[keys]\n"run.view" = "ctrl+m"', "terminals never pass on ctrl+m"),
        ("[keys\n", "is not TOML"),
        ('[keys]\n"run.view" = 3', "takes keys as a text"),
    ],
)
def test_mistakes_in_the_keymap_are_named(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "workbench.toml"
    file.write_text(text)
    with pytest.raises(WrongUsageError, match=re.escape(said)):
        read_keymap(file)


def test_the_printed_keymap_can_be_read_again(tmp_path: Path) -> None:
    file = tmp_path / "workbench.toml"
    file.write_text("\n".join(key_list({})))
    assert read_keymap(file) == {action.id: action.keys for action in ACTIONS}


def test_starting_again_lands_where_one_left(tmp_path: Path) -> None:
    plant_run(tmp_path / "runs", "first", steps=3)

    async def leave(pilot: Pilot[None], app: Workbench) -> None:
        await until_text(pilot, "gpt2ish_med")
        await pilot.press("3")
        await until_text(pilot, "first")
        await pilot.press("space", "ctrl+right")
        app.theme = "lmplay-light"
        await pilot.pause(0.1)
        await pilot.press("q")

    async def come_back(pilot: Pilot[None], app: Workbench) -> None:
        await pilot.pause(0.1)
        assert app.current_mode == "runs"
        assert app.theme == "lmplay-light"
        assert app.marks.get("marked", []) == ["first"]

    drive(make_app(tmp_path), leave)
    state = State(tmp_path / "state" / "workbench.json")
    app = make_app(tmp_path, mode=state.get("mode", ""), state=state)
    drive(app, come_back)


def test_a_torn_state_file_costs_nothing_but_what_it_held(tmp_path: Path) -> None:
    file = tmp_path / "workbench.json"
    file.write_text('{"mode": "ru')
    assert State(file).get("mode", "experiments") == "experiments"
    file.write_text(json.dumps({"mode": 7, "layout.run": 1}))
    state = State(file)
    assert state.get("mode", "experiments") == "experiments"  # of another kind than expected
    assert state.get("layout.run", 0.5) == 1


def test_ctrl_c_neither_leaves_nor_touches_a_run(tmp_path: Path) -> None:
    async def do(pilot: Pilot[None], app: Workbench) -> None:
        await pilot.press("ctrl+c", "ctrl+c")
        await until_text(pilot, "q leaves the workbench")
        assert app.is_running

    drive(make_app(tmp_path), do)


def test_each_screen_has_its_number_and_the_bar_says_where_one_is(tmp_path: Path) -> None:
    async def do(pilot: Pilot[None], app: Workbench) -> None:
        for number, (mode, title, _) in enumerate(SCREENS, 1):
            if mode in ("launch", "compare", "chat", "data"):
                continue
            await pilot.press(str(number))
            await pilot.pause(0.05)
            assert app.current_mode == mode
            assert f"{number} {title}" in text_of(app).splitlines()[0]

    drive(make_app(tmp_path), do)


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 50)])
def test_the_keys_at_the_bottom_fit_and_always_name_help_and_quit(tmp_path: Path, size: tuple[int, int]) -> None:
    async def do(pilot: Pilot[None], app: Workbench) -> None:
        await until_text(pilot, "gpt2ish_med")
        text = app.screen.query_one(KeyBar).text
        assert "Help" in text
        assert "Quit" in text
        assert len(text.rstrip()) <= size[0]

    drive(make_app(tmp_path), do, size=size)


def test_options_are_calmer_over_ssh_and_refuse_nonsense(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse_options([], {}).fps == 2.0
    assert parse_options([], {"SSH_CONNECTION": "1 2 3 4"}).fps == 1.0
    with pytest.raises(SystemExit) as ended:
        parse_options(["--fps", "0"], {})
    assert ended.value.code == 2
    assert "--fps takes a number" in capsys.readouterr().err


def test_brackets_in_names_and_errors_are_text(tmp_path: Path) -> None:
    """Textual reads them as markup: an error with `[/a/path]` in it ended the workbench."""

    async def do(pilot: Pilot[None], app: Workbench) -> None:
        await until_text(pilot, "gpt2ish_med")
        app.screen.notify("stages[1]: no [/such/tag] here", severity="error")
        await until_text(pilot, "stages[1]: no [/such/tag] here")
        app.screen.query_one("#list-pane", Pane).entitle("a[/b] [bold]")
        await until_text(pilot, "a[/b] [bold]")
        app.push_screen(TextDialog("Tags of [/x]", "of [red]"))
        await until_text(pilot, "Tags of [/x]")

    drive(make_app(tmp_path), do)


def test_what_is_told_for_a_moment_more_makes_no_toast(tmp_path: Path) -> None:
    """Textual's timer for it, of less than no time, never returned: the workbench stood still for good."""
    told = make_app(tmp_path)._notifications
    for text, seconds in (("gone soon", 0.4), ("stays", 60.0)):
        told.add(Notification(text, timeout=seconds))
    assert [one.message for one in told] == ["stays"]


def test_closed_dialogs_are_let_go(tmp_path: Path) -> None:
    async def do(pilot: Pilot[None], app: Workbench) -> None:
        async def open_and_close(times: int) -> int:
            for _ in range(times):
                await pilot.press("f1")
                await until_text(pilot, "esc closes")
                await pilot.press("escape")
                await pilot.pause()
            gc.collect()
            return sum(type(one) is Strip for one in gc.get_objects())

        await until_text(pilot, "gpt2ish_med")
        before = await open_and_close(3)
        assert await open_and_close(10) < before + 300  # lines that were drawn; each dialog has more than a hundred
        assert len(app.screen_stack) == 1

    drive(make_app(tmp_path), do)


def test_a_dialog_that_is_closed_twice_closes_nothing_else(tmp_path: Path) -> None:
    async def do(pilot: Pilot[None], app: Workbench) -> None:
        await until_text(pilot, "gpt2ish_med")
        app.push_screen(Question("Sure?", "The one below."))
        await pilot.pause()
        jump = JumpScreen(app.screen)
        app.push_screen(jump)
        await pilot.pause()
        jump.dismiss()
        jump.dismiss()  # by a key that came while the first one was being dealt with
        await pilot.pause()
        assert isinstance(app.screen, Question)
        question = app.screen
        question.action_cancel()
        question.action_cancel()
        await pilot.pause()
        assert app.is_running
        assert len(app.screen_stack) == 1

    drive(make_app(tmp_path), do)


def test_what_takes_long_is_looked_at_less_often_and_at_once_when_asked() -> None:
    now, looks = 100.0, 0
    release = asyncio.Event()

    async def look() -> None:
        nonlocal looks
        looks += 1
        await release.wait()

    async def do() -> None:
        nonlocal now
        pace = Pace(look, lambda: now)
        going = asyncio.create_task(pace.look())
        await asyncio.sleep(0)
        await pace.look()  # never twice at a time
        assert looks == 1
        pace.hurry()  # what is asked for now, the look that goes on may have missed
        now += 0.1
        release.set()
        await going
        assert looks == 2
        release.clear()
        going = asyncio.create_task(pace.look())
        await asyncio.sleep(0)
        now += 3
        release.set()
        await going
        now += 9
        assert not pace.is_due
        now += 1.1  # three seconds are no reason to stand still for a minute
        assert pace.is_due
        pace.hurry()
        assert pace.is_due

    asyncio.run(do())


def luminance(colour: Color) -> float:
    """Relative luminance, WCAG 2.1."""
    red, green, blue = (
        share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4
        for share in (colour.r / 255, colour.g / 255, colour.b / 255)
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("theme", [DARK, LIGHT], ids=lambda theme: theme.name)
def test_every_text_is_readable_on_every_ground(theme: Theme) -> None:
    variables = {**theme.to_color_system().generate(), **theme.variables}
    palette = Palette(variables, dark=theme.dark, ansi=False)
    inks = ["muted", "accent", "primary", "second", "good", "warn", "bad", *map(series_ink, range(NUM_SERIES))]
    for ground in ("background", "surface", "panel", "block-cursor-background"):
        below = luminance(Color.parse(variables[ground]))
        for ink in inks:
            above = luminance(Color.from_rich_color(palette.style(ink).color))
            dark, bright = sorted((above, below))
            assert (bright + 0.05) / (dark + 0.05) >= 4.5, f"{ink} on {ground}: WCAG AA asks for 4.5"


def test_a_run_named_at_the_start_is_where_the_next_start_lands(tmp_path: Path) -> None:
    state = State(tmp_path / "state.json")
    Workbench(Options(runs=tmp_path, open="first"), state=state)
    state.save()
    assert State(tmp_path / "state.json").get("mode", "experiments") == "run"
