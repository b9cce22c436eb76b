"""What the compare screen makes of the runs that are marked."""

from __future__ import annotations

from pathlib import Path

from textual.pilot import Pilot

from lmplay_tui.app import Workbench
from lmplay_tui.lines import plain
from lmplay_tui.services.comparison import Asked, Compared, ComparisonFeed
from lmplay_tui.views.compare import result_rows, series_of, words
from lmplay_tui.widgets.text_view import TextView
from tests.tui.support import drive, make_app, plant_run, text_of, until


def compared(root: Path, *names: str, baseline: str = "") -> Compared:
    return ComparisonFeed().look(Asked(runs=tuple(root / name for name in names), baseline=baseline, axis="tokens"))


def rows_of(found: Compared) -> dict[str, str]:
    return {row.key: " ".join(plain(cell) for cell in row.cells) for row in result_rows(found, series_of(found, {}))}


def test_runs_without_a_validation_loss_do_not_keep_the_others_from_being_compared(tmp_path: Path) -> None:
    plant_run(tmp_path, "base")
    plant_run(tmp_path, "wider", lr=2e-3, loss=lambda step: 3.5 + 5 / step)
    plant_run(tmp_path, "young", seed=1, steps=10)
    plant_run(tmp_path, "broken", lr=3e-3, loss=lambda _: float("nan"))
    found = compared(tmp_path, "base", "wider", "young", "broken")
    assert found.result is not None
    assert [standing.name for standing in found.result.standings] == ["base", "wider"]
    assert set(found.differences) == {"wider"}
    assert set(found.training) == {"base", "wider", "young", "broken"}  # their curves are drawn all the same
    rows = rows_of(found)
    assert list(rows) == ["base", "wider", "young", "broken"]  # and each can be taken out
    assert "diverged" in rows["broken"]
    told = " ".join(plain(one) for one in words(found, 200))
    assert "young has no validation yet: it is left out" in told
    assert "no validation loss of broken is a number: it is left out" in told


def test_a_baseline_without_a_validation_loss_leaves_nothing_to_compare_with(tmp_path: Path) -> None:
    plant_run(tmp_path, "base")
    plant_run(tmp_path, "young", lr=2e-3, steps=10)
    found = compared(tmp_path, "base", "young", baseline="young")
    assert found.result is not None
    assert found.result.reasons == ("young has no validation yet",)
    assert list(rows_of(found)) == ["base", "young"]
    plant_run(tmp_path, "base-too", seed=1, steps=10)
    plant_run(tmp_path, "wider", lr=3e-3)
    of_a_group = compared(tmp_path, "base", "wider", "base-too", baseline="base-too")
    assert of_a_group.result is not None
    assert of_a_group.result.reasons == ("base-too has no validation yet",)


def test_runs_validated_on_something_else_are_left_out_and_named(tmp_path: Path) -> None:
    plant_run(tmp_path, "base")
    plant_run(tmp_path, "wider", lr=2e-3)
    plant_run(tmp_path, "elsewhere", lr=3e-3, validation_key="other")
    found = compared(tmp_path, "base", "wider", "elsewhere")
    assert found.result is not None
    assert [standing.name for standing in found.result.standings] == ["base", "wider"]
    assert "elsewhere and base differ in the validation key: it is left out" in found.problems
    alone = compared(tmp_path, "base", "elsewhere")
    assert alone.result is not None
    assert alone.result.reasons == ("elsewhere and base differ in the validation key",)


def test_results_are_seen_below_what_is_said_of_runs_with_long_names(tmp_path: Path) -> None:
    names = [f"{'long-' * 20}{end}" for end in ("first", "second")]
    for order, name in enumerate(names):
        plant_run(tmp_path / "runs", name, order=order, lr=1e-3 + order, loss=lambda _, order=order: 4.0 + order)

    async def do(pilot: Pilot[None], app: Workbench) -> None:
        def both_are_listed() -> bool:
            lines = text_of(app).splitlines()
            return any("baseline" in line and "4.1000" in line for line in lines) and any(
                "+1.0000" in line and "5.1000" in line for line in lines
            )

        await until(pilot, both_are_listed, what="the rows of both runs")
        told = app.screen.query_one("#words", TextView)
        assert told.virtual_size.height > told.size.height
        assert not any("…" in told.render_line(row).text for row in range(told.size.height))

    app = make_app(tmp_path, mode="compare")
    app.marks.set("marked", names)
    drive(app, do, size=(70, 20))
