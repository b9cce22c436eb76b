"""Charts without a screen: limits, views, preparation, and the picture as characters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rich.cells import cell_len
from textual.pilot import Pilot

from lmplay_tui.app import Workbench
from lmplay_tui.chart.data import ChartData, Curve, Event, value_at
from lmplay_tui.chart.legend import event_near, legend
from lmplay_tui.chart.limits import quantised, span_of
from lmplay_tui.chart.picture import SIGNS, Ink, Picture, draw, ink_of, letters, plot_columns
from lmplay_tui.chart.prepare import prepare
from lmplay_tui.chart.view import View
from lmplay_tui.lines import plain
from lmplay_tui.screens.charting import limits_of
from lmplay_tui.widgets.chart import Chart
from tests.tui.support import drive, make_app, text_of, until, until_text

X = np.arange(1.0, 2001.0)
LOSS = 3 + 7 * np.exp(-X / 200)


def picture_of(data: ChartData, view: View | None = None, *, style: str = "braille", width: int = 80) -> Picture:
    view = view or View()
    return draw(prepare(data, view, plot_columns(width)), data, view, width, 16, style=style)


def rows_with(picture: Picture, ink: int) -> list[int]:
    return sorted(set(np.nonzero(picture.inks == ink)[0].tolist()))


def columns_with(picture: Picture, ink: int) -> list[int]:
    return sorted(set(np.nonzero(picture.inks == ink)[1].tolist()))


def test_limits_stay_while_data_grows_within_them_and_move_when_it_leaves() -> None:
    first = quantised((0.0, 93.0), parts=10)
    assert first == (0.0, 100.0)
    assert quantised((0.0, 99.0), parts=10, previous=first) == first
    assert quantised((0.0, 101.0), parts=10, previous=first)[1] > 101.0 - 1e-9
    assert quantised((0.0, 10.0), parts=10, previous=first) == (0.0, 10.0)  # shrunk to a tenth: follow it


def test_limits_of_one_value_and_of_none() -> None:
    low, high = quantised((2.0, 2.0), parts=8)
    assert low < 2.0 < high
    assert span_of([np.array([np.nan, np.inf])]) is None


def test_zooming_keeps_the_crosshair_where_it_is() -> None:
    view = View(cursor=30.0)
    window = view.zoomed((0.0, 100.0), 0.5).x_window
    assert window is not None
    assert window == pytest.approx((15.0, 65.0))
    assert (30.0 - window[0]) / (window[1] - window[0]) == pytest.approx(0.3)


def test_zooming_and_panning_on_a_logarithmic_axis_go_by_factors() -> None:
    view = View(log_x=True)
    assert view.zoomed((1.0, 10_000.0), 0.5).x_window == pytest.approx((10.0, 1000.0))
    assert view.panned((1.0, 100.0), 0.5).x_window == pytest.approx((10.0, 1000.0))


def test_the_crosshair_stops_at_the_ends() -> None:
    view = View().moved((0.0, 10.0), 1, 10)
    assert view.cursor == 0.0
    assert view.moved((0.0, 10.0), -5, 10).cursor == 0.0
    assert view.moved((0.0, 10.0), 3, 10).cursor == pytest.approx(3.0)


def test_a_falling_curve_falls_and_its_raw_points_lie_dim_behind() -> None:
    rng = np.random.default_rng(0)
    data = ChartData(curves=(Curve(name="train", x=X, y=LOSS + rng.normal(0, 0.5, len(X))),))
    picture = picture_of(data)
    bright = np.argwhere(picture.inks == ink_of(0))
    left, right = bright[bright[:, 1] < 20], bright[bright[:, 1] > 70]
    assert left[:, 0].min() < right[:, 0].min()
    assert (picture.inks == ink_of(0, dim=True)).any()


def test_smoothing_comes_before_decimation_and_before_the_zoom() -> None:
    y = np.tile([0.0, 1.0], 5000)
    data = ChartData(curves=(Curve(name="loss", x=np.arange(10_000.0), y=y),))
    for view in (View(span=200.0), View(span=200.0, x_window=(5000.0, 5100.0))):
        layers = [layer for layer in prepare(data, view, 40).layers if not layer.dim]
        assert np.abs(layers[0].y[-10:] - 0.5).max() < 0.01


def test_a_single_spike_survives_decimation_but_does_not_set_the_scale() -> None:
    y = LOSS.copy()
    y[1000] = 500.0
    prepared = prepare(ChartData(curves=(Curve(name="loss", x=X, y=y),)), View(span=0.0), 40)
    assert prepared.layers[0].y.max() == 500.0
    smoothed = prepare(ChartData(curves=(Curve(name="loss", x=X, y=y),)), View(span=50.0), 40)
    assert smoothed.y_limits[1] < 100.0


def test_gaps_and_nan_are_gaps_and_all_nan_is_an_empty_plot() -> None:
    y = LOSS.copy()
    y[500:1500] = np.nan
    picture = picture_of(ChartData(curves=(Curve(name="loss", x=X, y=y),)), View(span=0.0))
    drawn = columns_with(picture, ink_of(0))
    middle = picture.left + picture.plot_width // 2
    assert not [column for column in drawn if abs(column - middle) < 15]
    assert drawn[0] < middle < drawn[-1]
    nothing = ChartData(curves=(Curve(name="loss", x=X, y=np.full_like(X, np.nan)),))
    assert not prepare(nothing, View(), 40).has_values
    assert not columns_with(picture_of(nothing), ink_of(0))


def test_logarithmic_axes_leave_out_what_they_cannot_show() -> None:
    y = np.where(X < 1000, -1.0, 100.0)
    data = ChartData(curves=(Curve(name="loss", x=X - 1, y=y),))
    prepared = prepare(data, View(log_y=True, log_x=True, span=0.0), 80)
    assert np.nanmin(prepared.layers[0].y) == pytest.approx(2.0)
    picture = picture_of(data, View(log_y=True, log_x=True, span=0.0))
    assert picture.x_of(picture.left) < 2


def test_series_are_told_apart_by_marks_without_any_colour() -> None:
    curves = tuple(Curve(name=str(number), x=X, y=LOSS + number, series=number) for number in range(3))
    picture = picture_of(ChartData(curves=curves), View(span=0.0))
    for number in range(3):
        mark = SIGNS["braille"].marks[number]
        assert ((picture.codes == ord(mark)) & (picture.inks == ink_of(number))).any()


def test_every_validation_has_its_mark() -> None:
    x = np.arange(200.0, 2001.0, 200.0)
    data = ChartData(curves=(Curve(name="validation", x=x, y=np.linspace(9, 3, 10), series=1, kind="points"),))
    picture = picture_of(data)
    assert (picture.codes == ord("■")).sum() == 10


def test_borders_events_and_crosshair_stand_at_their_place() -> None:
    data = ChartData(
        curves=(Curve(name="loss", x=X, y=LOSS),),
        borders=((1000.0, "tune"),),
        events=(Event(x=500.0, kind="saved", text="saved"),),
    )
    picture = picture_of(data, View(cursor=1500.0))
    quarter = picture.plot_width / 4
    place = {ink: columns_with(picture, ink)[0] - picture.left for ink in (Ink.BORDER, Ink.EVENT, Ink.CURSOR)}
    assert place[Ink.EVENT] == pytest.approx(quarter, abs=1.5)
    assert place[Ink.BORDER] == pytest.approx(2 * quarter, abs=1.5)
    assert place[Ink.CURSOR] == pytest.approx(3 * quarter, abs=1.5)
    assert "tune" in picture.text().splitlines()[0]
    assert rows_with(picture, Ink.EVENT) == [picture.plot_height]


def test_names_of_stages_in_wide_letters_take_the_cells_that_they_have() -> None:
    noise = np.random.default_rng(0).uniform(0, 12, len(X))
    for border in np.linspace(10, 1990, 40).tolist():
        data = ChartData(curves=(Curve(name="loss", x=X, y=noise),), borders=((border, "データ🎉e\u0301tune"),))
        below, through = (picture_of(data, View(y_window=(0.0, top), span=0.0)) for top in (40.0, 12.0))
        for row in (*below.codes, *through.codes):
            assert cell_len(letters(row)) == len(row)
        assert border > 1600 or "データ🎉" in below.text()


def test_columns_and_values_lead_to_each_other() -> None:
    picture = picture_of(ChartData(curves=(Curve(name="loss", x=X, y=LOSS),)), View(x_window=(0.0, 1000.0)))
    assert picture.x_of(picture.left) == pytest.approx(0.0, abs=1000 / picture.plot_width)
    assert picture.x_of(picture.left + picture.plot_width) == pytest.approx(1000.0, abs=1000 / picture.plot_width)


def test_ascii_is_ascii() -> None:
    data = ChartData(
        curves=(Curve(name="loss", x=X, y=LOSS), Curve(name="other", x=X, y=LOSS + 1, series=1)),
        borders=((1000.0, "tune"),),
        events=(Event(x=500.0, kind="warning", text="spike"),),
    )
    assert picture_of(data, View(cursor=700.0), style="ascii").text().isascii()


def test_the_axis_of_a_live_run_does_not_move_with_every_row() -> None:
    previous, moves = None, 0
    for rows in range(1000, 1100):
        data = ChartData(curves=(Curve(name="loss", x=X[:rows], y=LOSS[:rows]),))
        prepared = prepare(data, View(), 80, previous=previous)
        moves += previous is not None and prepared.x_limits != previous.x_limits
        previous = prepared
    assert moves <= 3


def test_the_nearest_point_is_found_from_both_sides() -> None:
    curve = Curve(name="loss", x=np.array([1.0, 2.0, 3.0, 10.0]), y=np.array([5.0, np.nan, 7.0, 8.0]))
    assert value_at(curve, 1.9) == (1.0, 5.0)
    assert value_at(curve, 2.2) == (3.0, 7.0)
    assert value_at(curve, 99.0) == (10.0, 8.0)
    assert value_at(Curve(name="none", x=np.empty(0), y=np.empty(0)), 1.0) is None


def test_the_legend_reads_off_all_curves_at_the_crosshair_and_drops_the_event_where_it_is_narrow() -> None:
    curves = tuple(Curve(name=name, x=X, y=X * factor, series=factor) for name, factor in (("a", 1), ("b", 2)))
    data = ChartData(curves=curves, events=(Event(x=100.0, kind="saved", text="saved at step 100"),))
    event = event_near(data.events, 101.0, (0.0, 1000.0), 80)
    assert event == "saved at step 100"
    assert event_near(data.events, 200.0, (0.0, 1000.0), 80) == ""
    assert plain(legend(data, None, 80, marks="ox*")) == "x a 2000  * b 4000"
    assert plain(legend(data, 100.4, 80, marks="ox*", event=event)) == "step 100  saved at step 100  x a 100  * b 200"
    assert plain(legend(data, 100.4, 30, marks="ox*", event=event)) == "step 100  x a 100  * b 200"
    assert plain(legend(data, 100.4, 20, marks="ox*", event=event)) == "x a 100  * b 200"
    assert plain(legend(data, 100.4, 14, marks="ox*", event=event)) == "x 100  * 200"


def test_typed_limits_are_two_numbers_in_order_or_nothing() -> None:
    assert limits_of("2.5, 6") == (2.5, 6.0)
    assert limits_of("") is None
    for wrong in ("6 2.5", "1", "a b", "1 inf", "1 2 3"):
        with pytest.raises(ValueError, match=r"."):
            limits_of(wrong)


def test_what_is_said_of_an_empty_chart_goes_when_there_are_curves(tmp_path: Path) -> None:
    async def do(pilot: Pilot[None], app: Workbench) -> None:
        await until_text(pilot, "0 runs, 0 groups")  # what comes later would take the place of what is said here
        chart = app.screen.query_one("#training", Chart)
        chart.focus()
        chart.show_empty("nothing of it")
        await until_text(pilot, "nothing of it")
        chart.show_empty("still nothing")
        await until_text(pilot, "still nothing")
        chart.show(ChartData(curves=(Curve(name="loss", x=X, y=LOSS),)))
        await until(pilot, lambda: "still nothing" not in text_of(app), what="the curve alone")
        for y, view, why in (
            (LOSS * np.nan, View(), "none of the values is a number"),
            (-LOSS, View(log_y=True), "no value above 0 for a log axis"),
            (LOSS, View(), "● loss"),
        ):
            chart.look(view)
            chart.show(ChartData(curves=(Curve(name="loss", x=X, y=y),)))
            await until_text(pilot, why)
        await pilot.press("b")
        await until(pilot, lambda: "▖" in text_of(app) or "▘" in text_of(app), what="blocks")
        await pilot.press("F")
        await until_text(pilot, "Limits")
        await pilot.press("end", *["backspace"] * 12, *"20", "space", *"30", "enter")
        await until(pilot, lambda: chart.view.y_window == (20.0, 30.0), what="the typed limits")

    drive(make_app(tmp_path, mode="compare"), do)


def test_one_point_and_no_point_and_the_smallest_screen() -> None:
    for x in (np.empty(0), np.array([3.0])):
        data = ChartData(curves=(Curve(name="loss", x=x, y=x),))
        for width, height in ((80, 16), (8, 3)):
            prepared = prepare(data, View(), plot_columns(width))
            draw(prepared, data, View(), width, height)
