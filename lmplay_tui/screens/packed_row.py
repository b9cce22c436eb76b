"""Going through the packed rows of a dataset: the next one, one by its number, another packing, another length."""

from __future__ import annotations

from dataclasses import replace

from lmplay_tui.dialogs.asking import TextDialog
from lmplay_tui.screens.base import WorkbenchScreen
from lmplay_tui.services.data_facts import PACKINGS, DataFacts, RowKey

_LENGTHS = (64, 128, 256, 512, 1024, 2048, 4096)


class PackedRowScreen(WorkbenchScreen):
    """A screen on which one row of one dataset is looked at."""

    facts: DataFacts

    def __init__(self) -> None:
        super().__init__()
        self._chosen_row: RowKey | None = None

    @property
    def row_place(self) -> tuple[str, str] | None:
        """(plan, dataset) of the row."""
        raise NotImplementedError

    def row_chosen(self) -> None:
        """Another row is to be shown."""
        raise NotImplementedError

    @property
    def row_key(self) -> RowKey | None:
        """As a person chose it, else the first row as the plan packs it."""
        if self.row_place is None:
            return None
        chosen = self._chosen_row
        if chosen is not None and (chosen.plan, chosen.dataset) == self.row_place:
            return chosen
        return self.facts.usual_row(*self.row_place)

    def _look_at_row(self, key: RowKey) -> None:
        last = self.facts.last_row(key)
        self._chosen_row = replace(key, number=max(0, key.number if last is None else min(key.number, last)))
        self.row_chosen()

    def _step_row(self, step: int) -> None:
        key = self.row_key
        if key is not None:
            self._look_at_row(replace(key, number=key.number + step))

    def action_next_row(self) -> None:
        self._step_row(1)

    def action_previous_row(self) -> None:
        self._step_row(-1)

    def action_row(self) -> None:
        self.begin(self._choose_row, "dialog")

    async def _choose_row(self) -> None:
        key = self.row_key
        if key is None:
            return
        last = self.facts.last_row(key)
        text = f"Rows 0 to {last:,}." if last is not None else "In the order of the source, from 0."
        typed = await self.app.push_screen_wait(
            TextDialog("Row", text, value=str(key.number), problem=lambda typed: _why_no_row(typed, last))
        )
        if typed:
            self._look_at_row(replace(key, number=int(typed)))

    def action_packing(self) -> None:
        key = self.row_key
        if key is not None:
            following = PACKINGS[(PACKINGS.index(key.packing) + 1) % len(PACKINGS)]
            self._look_at_row(replace(key, packing=following, number=0))

    def action_longer(self) -> None:
        self._change_length(1)

    def action_shorter(self) -> None:
        self._change_length(-1)

    def _change_length(self, step: int) -> None:
        key = self.row_key
        if key is not None:
            nearest = min(range(len(_LENGTHS)), key=lambda place: abs(_LENGTHS[place] - key.length))
            length = _LENGTHS[min(max(nearest + step, 0), len(_LENGTHS) - 1)]
            self._look_at_row(replace(key, length=length, number=0))


def _why_no_row(typed: str, last: int | None) -> str:
    if not typed.isdecimal():
        return "Give the number of a row."
    return f"The last row is {last:,}." if last is not None and int(typed) > last else ""
