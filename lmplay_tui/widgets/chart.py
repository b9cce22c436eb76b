"""The chart as a widget: legend, picture, crosshair; keys and mouse change its view, and only what changed is sent."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np
from textual import events
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from lmplay_tui.actions import bindings_for
from lmplay_tui.chart.data import ASCII_MARKS, MARKS, ChartData
from lmplay_tui.chart.legend import event_near, legend
from lmplay_tui.chart.picture import LABEL_WIDTH, Ink, Picture, draw, letters, plot_columns
from lmplay_tui.chart.prepare import Prepared, prepare
from lmplay_tui.chart.view import AUTO_SHARE, AUTO_SPAN, Limits, View
from lmplay_tui.lines import Line, line, to_strip
from lmplay_tui.theme import palette_of, series_ink

_IN_THREAD = 60_000
"""Points from which on preparing takes longer than the event loop should wait."""
_INKS = {
    Ink.NONE: "",
    Ink.AXIS: "faint",
    Ink.LABEL: "muted",
    Ink.GRID: "faint",
    Ink.BORDER: "accent",
    Ink.CURSOR: "muted",
    Ink.EVENT: "bold accent",
}


class Chart(Widget, can_focus=True):
    """`show(data)` sets what is shown; `Changed` tells that a person changed the view, `Wanted` what they ask for."""

    ALLOW_SELECT = False
    HELP = (
        "A chart. The thin line is smoothed, the dim one behind it is what was logged. Arrow keys move a crosshair "
        "that reads off all curves; plus and minus zoom around it; drag to zoom with the mouse, wheel to zoom, "
        "shift-wheel to pan, double click for all."
    )
    DEFAULT_CSS = """
    Chart { height: 1fr; width: 1fr; min-height: 5; }
    """
    BINDINGS = bindings_for("chart")

    @dataclass
    class Changed(Message):
        """The view was changed by a person."""

        chart: Chart
        view: View

        @property
        def control(self) -> Chart:
            return self.chart

    @dataclass
    class Wanted(Message):
        """Something that the screen has to do: another x axis or figure, the full pane, writing it to a file."""

        chart: Chart
        what: str

        @property
        def control(self) -> Chart:
            return self.chart

    def __init__(
        self,
        *,
        style: str = "braille",
        view: View | None = None,
        empty: str = "nothing logged yet",
        id: str | None = None,
    ) -> None:
        super().__init__(id=id)
        self._style, self._usual, self._empty = style, empty, empty
        self.data = ChartData()
        self.view = view or View()
        self.picture: Picture | None = None
        self._prepared: Prepared | None = None
        self._strips: dict[int, Strip] = {}
        self._words = ""
        """What stands in the middle in place of curves."""
        self._legend: Line = ()
        self._drag: tuple[int, int] | None = None
        self._stale = True
        self._pending: tuple[ChartData, View, int] | None = None

    # ---- what is shown -----------------------------------------------------------------------------------------------

    def show(self, data: ChartData, *, empty: str | None = None) -> None:
        """Show other data under the same view; `empty` says why there may be no curve, where that isn't the usual."""
        if data is self.data:
            return
        self._empty = self._usual if empty is None else empty
        self.data = data
        self._prepare()

    def show_empty(self, text: str) -> None:
        """Show nothing, and say why."""
        if self.data.curves or text != self._empty:
            self.show(ChartData(), empty=text)

    def look(self, view: View, *, tell: bool = False) -> None:
        """Change how it is looked at."""
        if view == self.view:
            return
        only_cursor = replace(view, cursor=self.view.cursor) == self.view
        if (view.log_x, view.log_y) != (self.view.log_x, self.view.log_y):
            self._prepared = None  # limits in other units are none to keep
        self.view = view
        if only_cursor and self._prepared is not None:
            self._draw()
        else:
            self._prepare()
        if tell:
            self.post_message(self.Changed(self, view))

    def _prepare(self) -> None:
        """Layers for the present size: at once for a short run, in a thread for a long one."""
        width = self.size.width
        if width == 0 or self.size.height < 3 or not self.display:
            self._stale = True
            return
        self._stale = False
        if self.data.num_points <= _IN_THREAD:
            self._prepared = prepare(self.data, self.view, plot_columns(width), previous=self._prepared)
            self._draw()
            return
        self._pending = (self.data, self.view, width)
        self.run_worker(self._prepare_in_thread, thread=True, group="prepare", exclusive=True, exit_on_error=True)

    def _prepare_in_thread(self) -> None:
        pending = self._pending
        if pending is None:
            return
        data, view, width = pending
        prepared = prepare(data, view, plot_columns(width), previous=self._prepared)

        def finish() -> None:
            if self._pending is pending:
                self._pending = None
                self._prepared = prepared
                self._draw()

        self.app.call_from_thread(finish)

    def _draw(self) -> None:
        prepared, height = self._prepared, self.size.height - 1
        if prepared is None or height < 2:
            return
        before = self.picture
        self.picture = draw(prepared, self.data, self.view, self.size.width, height, style=self._style)
        legend = self._legend_line()
        if legend != self._legend:
            self._legend = legend
            self.refresh(Region(0, 0, self.size.width, 1))
        words = "" if prepared.has_values else self._why_empty()
        words_changed, self._words = words != self._words, words
        if before is None or words_changed or before.codes.shape != self.picture.codes.shape:
            self._strips.clear()
            self.refresh()
            return
        # Only the stretch of each row that differs goes to the terminal.
        differs = (before.codes != self.picture.codes) | (before.inks != self.picture.inks)
        for row in np.flatnonzero(differs.any(axis=1)).tolist():
            columns = np.flatnonzero(differs[row])
            first, last = int(columns[0]), int(columns[-1])
            self._strips.pop(row, None)
            self.refresh(Region(first, row + 1, last - first + 1, 1))

    def _why_empty(self) -> str:
        """What is said in place of curves."""
        if not self.data.num_points:
            return self._empty
        if not any(np.isfinite(curve.y).any() for curve in self.data.curves):
            return "none of the values is a number"
        return "no value above 0 for a log axis"

    def redraw(self) -> None:
        """Everything anew: another theme, another style."""
        self._strips.clear()
        self.picture = None
        self._prepare()
        self.refresh()

    def set_signs(self, style: str) -> None:
        """Draw with other characters: a key of `lmplay_tui.chart.picture.SIGNS`."""
        if style != self._style:
            self._style = style
            self.redraw()

    # ---- drawing -----------------------------------------------------------------------------------------------------

    def render_line(self, y: int) -> Strip:
        palette, width = palette_of(self.app), self.size.width
        if y == 0:
            return to_strip(self._legend, palette, width).apply_style(self.rich_style)
        if self.picture is None or y > self.picture.codes.shape[0]:
            return Strip.blank(width, self.rich_style)
        if self._words:
            # Neither axes nor grid where nothing lies between them.
            text = self._words.center(width) if y - 1 == self.picture.plot_height // 2 else ""
            return to_strip(line((text, "muted")), palette, width).apply_style(self.rich_style)
        if y - 1 not in self._strips:
            content = self._row(y - 1)
            self._strips[y - 1] = to_strip(content, palette, width).apply_style(self.rich_style)
        return self._strips[y - 1]

    def _row(self, row: int) -> Line:
        assert self.picture is not None
        codes, inks = self.picture.codes[row], self.picture.inks[row]
        # A blank has no ink of its own: in that of the character before it, it costs the terminal no change of colour.
        drawn = np.where(codes != ord(" "), np.arange(len(codes)), 0)
        inks = inks[np.maximum.accumulate(drawn)]
        starts = [0, *(np.flatnonzero(np.diff(inks)) + 1).tolist(), len(codes)]
        return tuple(
            (letters(codes[start:end]), _ink_name(int(inks[start])))
            for start, end in itertools.pairwise(starts)
            if end > start
        )

    def _legend_line(self) -> Line:
        cursor, picture = self.view.cursor, self.picture
        event = ""
        if cursor is not None and picture is not None:
            event = event_near(self.data.events, cursor, picture.x_window, picture.plot_width)
        marks = ASCII_MARKS if self._style == "ascii" else MARKS
        indent = " " * (LABEL_WIDTH + 1)
        return line(indent, *legend(self.data, cursor, self.size.width - len(indent), marks=marks, event=event))

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._strips.clear()
        self.refresh()

    def on_resize(self) -> None:
        self.picture = None
        self._prepare()

    def on_show(self) -> None:
        if self._stale:
            self._prepare()

    # ---- keys --------------------------------------------------------------------------------------------------------

    @property
    def shown(self) -> Limits:
        """The part of the x axis in view, in units of the data."""
        return self.picture.x_window if self.picture is not None else (0.0, 1.0)

    @property
    def y_limits(self) -> Limits:
        """The part of the y axis in view, in units of the data."""
        low, high = self.picture.y_limits if self.picture is not None else (0.0, 1.0)
        return (10.0**low, 10.0**high) if self.view.log_y else (low, high)

    def _move_cursor(self, columns: int) -> None:
        if self.picture is not None:
            self.look(self.view.moved(self.shown, columns, self.picture.plot_width), tell=True)

    def action_left(self) -> None:
        self._move_cursor(-1)

    def action_right(self) -> None:
        self._move_cursor(1)

    def action_far_left(self) -> None:
        self._move_cursor(-10)

    def action_far_right(self) -> None:
        self._move_cursor(10)

    def action_zoom_in(self) -> None:
        self.look(self.view.zoomed(self.shown, 0.6), tell=True)

    def action_zoom_out(self) -> None:
        self.look(self.view.zoomed(self.shown, 1 / 0.6), tell=True)

    def action_pan_left(self) -> None:
        self.look(self.view.panned(self.shown, -0.25), tell=True)

    def action_pan_right(self) -> None:
        self.look(self.view.panned(self.shown, 0.25), tell=True)

    def action_reset(self) -> None:
        self._prepared = None
        self.look(self.view.reset(), tell=True)

    def action_log_y(self) -> None:
        self.look(replace(self.view, log_y=not self.view.log_y, y_window=None), tell=True)

    def action_log_x(self) -> None:
        self.look(replace(self.view, log_x=not self.view.log_x), tell=True)

    def action_smooth(self) -> None:
        self._smooth(1)

    def action_less_smooth(self) -> None:
        self._smooth(-1)

    def _smooth(self, direction: int) -> None:
        self.look(self.view.with_next_span(direction), tell=True)
        span = self.view.span
        words = (
            f"over {AUTO_SHARE:.1%} of the rows" if span == AUTO_SPAN else f"over {span:g} rows" if span > 1 else "off"
        )
        self.notify(f"smoothing {words}", timeout=2)

    def action_fix(self) -> None:
        if self.view.y_window is not None or self.picture is None:
            self.look(replace(self.view, y_window=None), tell=True)
            return
        self.look(replace(self.view, y_window=self.y_limits), tell=True)
        self.notify("limits of the y axis are fixed", timeout=2)

    def action_limits(self) -> None:
        self._want("limits")

    def action_signs(self) -> None:
        self._want("signs")

    def _want(self, what: str) -> None:
        self.post_message(self.Wanted(self, what))

    def action_x_axis(self) -> None:
        self._want("x_axis")

    def action_full(self) -> None:
        self._want("full")

    def action_metric(self) -> None:
        self._want("figure")

    def action_export(self) -> None:
        self._want("export")

    # ---- mouse -------------------------------------------------------------------------------------------------------

    def on_mouse_down(self, event: events.MouseDown) -> None:
        if event.button == 1 and self.picture is not None:
            self._drag = (event.x, event.x)
            self.capture_mouse()

    def on_mouse_move(self, event: events.MouseMove) -> None:
        if self._drag is not None and self.picture is not None:
            self._drag = (self._drag[0], event.x)
            self.look(replace(self.view, cursor=self.picture.x_of(event.x)))

    def on_mouse_up(self, event: events.MouseUp) -> None:
        drag, self._drag = self._drag, None
        if drag is None or self.picture is None:
            return
        self.release_mouse()
        first, last = sorted((drag[0], event.x))
        if last - first >= 3:
            window = (self.picture.x_of(first), self.picture.x_of(last))
            self.look(replace(self.view, x_window=window, cursor=None), tell=True)
        else:
            self.look(replace(self.view, cursor=self.picture.x_of(event.x)), tell=True)

    def on_click(self, event: events.Click) -> None:
        if event.chain == 2:
            self.action_reset()

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        self._wheel(event, 0.8)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        self._wheel(event, 1 / 0.8)

    def _wheel(self, event: events.MouseEvent, factor: float) -> None:
        if self.picture is None:
            return
        event.stop()
        if event.shift:
            self.look(self.view.panned(self.shown, -0.1 if factor < 1 else 0.1), tell=True)
        else:
            self.look(self.view.zoomed(self.shown, factor, self.picture.x_of(event.x)), tell=True)


def _ink_name(ink: int) -> str:
    if ink >= Ink.SERIES:
        series, dim = divmod(ink - Ink.SERIES, 2)
        return series_ink(series, dim=bool(dim))
    return _INKS[Ink(ink)]
