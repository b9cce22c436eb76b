"""The run's screen: its log in words, and a crosshair that charts, head, log and events share."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from textual.pilot import Pilot

from lmplay.runs import summarize
from lmplay.stats.apart import Reader
from lmplay.stats.history import History
from lmplay.utils.files import to_json
from lmplay_tui.app import Workbench
from lmplay_tui.lines import plain
from lmplay_tui.screens.run import RunScreen
from lmplay_tui.services import run_feed
from lmplay_tui.services.run_feed import Feeds, RunFeed
from lmplay_tui.views.run import crosshair_line, head_lines, nearest_row
from lmplay_tui.views.run_log import RunLog
from tests.tui.support import START, drive, make_app, plant_run, text_of, until, until_text


def test_the_log_tells_steps_validations_and_events_in_their_order(tmp_path: Path) -> None:
    path = plant_run(tmp_path, "first", steps=100, loss=lambda step: math.nan if step == 99 else 3.0)
    feed, log = RunFeed(path), RunLog()
    text = [plain(line) for line in log.take(feed.look())]
    clocks = [line[:8] for line in text]
    assert clocks == sorted(clocks)
    assert "started" in text[0]
    # Rows come every half second; a line a second is enough, but what is wrong is always told.
    assert sum("step 9" in line for line in text) < 9
    assert any("step 99" in line and "loss NaN" in line for line in text)
    validated = next(index for index, line in enumerate(text) if "validation 3.1" in line)
    assert "step 50" in text[validated]
    assert "saved" in text[validated + 1]
    assert plain(log.lines[log.nearest(53) or 0]).split()[2] in ("53", "52", "54")
    assert log.take(feed.look()) is log.lines  # nothing new: nothing is put into words again

    with (path / "metrics.jsonl").open("a") as file:
        row = {"kind": "train", "stage": "learn", "step": 101, "samples": 808, "tokens": 103_424, "time": 51.0}
        file.write(to_json({**row, "clock": START + 51, "loss": 2.5}) + "\n")
    grown = [plain(line) for line in log.take(feed.look())]
    assert grown[:-1] == text
    assert "step 101" in grown[-1]


def test_the_row_at_the_crosshair_is_found_over_any_axis(tmp_path: Path) -> None:
    picture = RunFeed(plant_run(tmp_path, "first", steps=100)).look()
    for axis, place in (("step", 40.3), ("samples", 322.0), ("tokens", 41_000.0), ("time", 20.1)):
        row = nearest_row(picture.train, axis, place)
        assert row is not None
        assert picture.train["step"][row] == 40
        told = plain(crosshair_line(picture, axis, place, 120))
        assert told.startswith("step 40   41.0k tokens   20 s   loss")
        assert len(plain(crosshair_line(picture, axis, place, 60))) <= 60
    empty = RunFeed(plant_run(tmp_path, "empty", steps=0)).look()
    assert crosshair_line(empty, "step", 3.0, 80) == ()


def test_the_crosshair_leads_to_log_and_events_and_an_event_to_the_crosshair(tmp_path: Path) -> None:
    plant_run(tmp_path / "runs", "first", steps=200)

    async def do(pilot: Pilot[None], app: Workbench) -> None:
        await until_text(pilot, "● train")
        assert isinstance(app.screen, RunScreen)
        screen = app.screen
        main = screen.deck.main
        main.look(replace(main.view, cursor=60.0), tell=True)
        await until_text(pilot, "step 60   61.4k tokens")

        def log_is_there() -> bool:
            """It has a line a second: that of the step before or after."""
            lines = text_of(app).splitlines()
            return any("|grad|" in line and ("step 59" in line or "step 61" in line) for line in lines)

        await until(pilot, log_is_there, what="the log at the crosshair")
        await pilot.press("v", "v")
        await until_text(pilot, "checkpoint=200")
        screen.events.focus()
        screen.events.move_to("1")  # the first validation
        await pilot.press("enter")
        await until(pilot, lambda: main.view.cursor == 50.0, what="the crosshair at the event")
        await pilot.press("escape")
        await until(pilot, lambda: main.view.cursor is None, what="no crosshair")
        await until_text(pilot, "validation 3.1")
        screen.views.choose("checkpoints")  # there are none, and looking for something among them is no mistake
        await until_text(pilot, "no checkpoint yet")
        await pilot.press("slash", *"here", "enter")
        await until_text(pilot, "'here' is not there")

    drive(make_app(tmp_path, mode="run"), do)


def test_a_long_run_is_read_beside_everything_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant_run(tmp_path / "runs", "first", steps=200)
    go_on, readers = threading.Event(), []

    def read_slowly(path: Path, progress: Callable[[int], None], *, reader: Reader | None) -> History:
        assert reader is None
        readers.append(path.name)
        progress((path / "metrics.jsonl").stat().st_size // 2)
        assert go_on.wait(60)
        return History(path)

    monkeypatch.setattr(run_feed, "open_history", read_slowly)

    async def do(pilot: Pilot[None], _: Workbench) -> None:
        try:
            await until_text(pilot, "reading what was logged: 50%")
            plant_run(tmp_path / "runs", "second", steps=10, order=1)
            await pilot.press("3")
            await until_text(pilot, "second")  # the list is looked at all the while
            await pilot.press("4")
            await until_text(pilot, "reading what was logged: 50%")
        finally:
            go_on.set()
        await until_text(pilot, "● train")
        assert readers.count("first") == 1  # two screens show it

    drive(make_app(tmp_path, mode="run"), do)


def test_checkpoints_lead_to_a_chat_with_each(tmp_path: Path) -> None:
    path = plant_run(tmp_path / "runs", "first", steps=200)
    folder = path / "checkpoints" / "150"
    folder.mkdir(parents=True)
    for name in ("model.safetensors", "trainer.pt"):
        (folder / name).write_bytes(b"0" * 100)
    (folder / "model.json").write_text(json.dumps({"format": 1}))

    async def do(pilot: Pilot[None], app: Workbench) -> None:
        await until_text(pilot, "● train")
        assert isinstance(app.screen, RunScreen)
        app.screen.views.choose("checkpoints")
        await until_text(pilot, "213 B")
        app.screen.checkpoints.focus()
        await pilot.press("enter")
        await until(pilot, lambda: app.current_mode == "chat", what="the chat")
        await until_text(pilot, "first@150")

    drive(make_app(tmp_path, mode="run"), do)


def test_a_chart_or_a_view_alone_gives_way_to_what_is_asked_for_next(tmp_path: Path) -> None:
    plant_run(tmp_path / "runs", "first", steps=200)
    log = tmp_path / "runs" / "first" / "worker.log"
    log.write_text(log.read_text() + "x" * 300 + " the Needle\n" + "and the needle again\n" + "the end\n" * 40)

    async def do(pilot: Pilot[None], app: Workbench) -> None:
        await until_text(pilot, "● train")
        assert isinstance(app.screen, RunScreen)
        screen, head = app.screen, text_of(app).splitlines()[1]
        await pilot.press("z")
        await until(pilot, lambda: "gradient norm" not in text_of(app), what="one chart alone")
        assert "Console" not in text_of(app)
        await pilot.press("v")  # to the console
        await until_text(pilot, "the end")
        # It was told a tick ago, when it had no width, and nothing is new in a run that has ended.
        await until(pilot, lambda: text_of(app).splitlines()[1] == head, what="the head as wide as before")

        screen.deck.main.focus()
        await pilot.press("z")
        await until(pilot, lambda: "the end" not in text_of(app), what="one chart alone")
        await pilot.press("slash", *"NEEDLE", "enter")
        await until_text(pilot, "the Needle")  # at the far end of its line
        assert "gradient norm" in text_of(app)
        marked = screen.console.render_line(int(screen.console.virtual_size.height) - 42 - int(screen.console.scroll_y))
        assert "the Needle" in marked.text
        plain_line = screen.console.render_line(0)
        assert list(marked)[-1].style != list(plain_line)[-1].style
        await pilot.press("n")
        await until_text(pilot, "and the needle again")
        await pilot.press("N")
        await until_text(pilot, "the Needle")
        await pilot.press("slash", *"missing", "enter")  # in place of what was looked for before
        await until_text(pilot, "'missing' is not there")

        screen.views.choose("events")
        screen.views.in_sight.focus()
        await pilot.press("z")
        await until(pilot, lambda: "gradient norm" not in text_of(app), what="the events alone")
        screen.events.move_to("1")
        await pilot.press("enter")
        await until_text(pilot, "gradient norm")
        assert app.focused is screen.deck.main

    drive(make_app(tmp_path, mode="run"), do)


def test_a_reader_that_is_at_work_serves_the_run_it_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (plant_run(tmp_path, name, steps=5) for name in ("first", "second"))
    waited_for: list[Path] = []
    wait = Reader.wait

    def note(reader: Reader, progress: Callable[[int], None] | None = None) -> None:
        waited_for.append(reader.path)
        wait(reader, progress)

    monkeypatch.setattr(Reader, "wait", note)
    feeds = Feeds(Reader(first))
    feeds.of(second).look()
    assert waited_for == []
    for _ in range(2):
        assert feeds.of(first).look().train.num_rows == 5
    assert waited_for == [first]


def test_the_name_of_a_run_is_there_whatever_its_stage_is_called(tmp_path: Path) -> None:
    path = plant_run(tmp_path, "first", steps=3, stages=("a-very-long-" * 9 + "stage",))
    for width in (40, 78, 198):
        name = plain(head_lines(summarize(path), (), width)[0])
        assert "first" in name
        assert name.rstrip().endswith("age")
        assert len(name) == width
