"""What the data screen says of plans: the list, the stages, the datasets, the token cache, and preparations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lmplay.plans import DatasetSpec, Plan, Stage
from lmplay.utils.figures import format_bytes, format_count, format_seconds
from lmplay_tui.columns import Column
from lmplay_tui.figures import progress_bar, short_number
from lmplay_tui.lines import Line, facts, joined, line, rewrapped, spread, wrapped
from lmplay_tui.services.plan_shelf import ShelvedPlan
from lmplay_tui.services.preparation import Preparation, Step
from lmplay_tui.theme import series_ink
from lmplay_tui.widgets.grid import Row

Costs = Mapping[str, Any]
"""`lmplay plans show PLAN --json`."""

PLAN_COLUMNS = (
    Column(key="mark", least=1, most=1),
    Column(key="name", title="plan", flex=2, least=12, most=30, ends=True),
    Column(key="tokens", title="tokens", align="right", least=6, most=8),
    Column(key="stages", title="stages", align="right", rank=2, least=6, most=6),
    Column(key="about", title="description", flex=1, rank=3, least=16, most=90),
)
DATASET_COLUMNS = (
    Column(key="mark", least=1, most=1),
    Column(key="name", title="dataset", least=8, most=24),
    Column(key="tokens", title="tokens", align="right", least=6, most=9),
    Column(key="disk", title="disk", align="right", rank=1, least=7, most=9),
    Column(key="source", title="source", flex=1, rank=2, least=10, most=80),
)
CACHE_COLUMNS = (
    Column(key="name", title="prepared text", flex=1, least=12, most=60),
    Column(key="tokens", title="tokens", align="right", least=6, most=9),
    Column(key="documents", title="documents", align="right", rank=1, least=6, most=9),
    Column(key="disk", title="disk", align="right", least=7, most=9),
    Column(key="used", title="last used", align="right", rank=2, least=8, most=12),
)
_NAME_WIDTH = 8


def prepared_mark(share: float | None, *, preparing: bool = False, ascii_only: bool = False) -> Line:
    """All prepared, a part of it, or nothing; or being prepared now."""
    if preparing:
        return line(("*" if ascii_only else "●", "good"))
    if share is None:
        return ()
    if share >= 1:
        return line(("+" if ascii_only else "✓", "good"))
    if share > 0:
        return line(("~" if ascii_only else "◐", "warn"))
    return line(("o" if ascii_only else "◌", "muted"))


def plan_rows(
    plans: Sequence[ShelvedPlan], costs: Mapping[str, Costs], preparing: Sequence[str], *, ascii_only: bool = False
) -> list[Row]:
    """Own plans above, the ready ones below."""
    rows: list[Row] = []
    own = [plan for plan in plans if not plan.ready]
    for title, group in (("here", own), ("ready", [plan for plan in plans if plan.ready])):
        if own and group:
            rows.append(Row(f"head:{title}", (line((title, "muted")),), heading=True))
        rows += [_plan_row(plan, costs.get(plan.key), plan.key in preparing, ascii_only=ascii_only) for plan in group]
    return rows


def _plan_row(plan: ShelvedPlan, cost: Costs | None, preparing: bool, *, ascii_only: bool) -> Row:
    if plan.plan is None:
        sign = "!" if ascii_only else "✗"
        return Row(plan.key, (line((sign, "bad")), line((plan.name, "bad")), (), (), line((plan.problem, "bad"))))
    share = None
    if cost is not None:
        prepared = [bool(dataset.get("prepared")) for dataset in cost.get("datasets", ())]
        share = sum(prepared) / len(prepared) if prepared else None
    tokens = total_tokens(cost)
    return Row(
        plan.key,
        (
            prepared_mark(share, preparing=preparing, ascii_only=ascii_only),
            line((plan.name, "bold")),
            line((_estimated(tokens, share == 1), "muted")) if tokens else (),
            line((str(len(plan.plan.stages)), "muted")),
            line((plan.plan.description, "muted")),
        ),
    )


def total_tokens(cost: Costs | None) -> float | None:
    """Tokens that a training under the plan sees."""
    if cost is None:
        return None
    found = [stage.get("tokens") for stage in cost.get("stages", ())]
    return sum(found) if found and all(isinstance(tokens, int | float) for tokens in found) else None


def _estimated(value: float | None, exact: bool) -> str:
    return "" if value is None else f"{'' if exact else '~'}{format_count(value)}"


# ---- stages ----------------------------------------------------------------------------------------------------------


def stage_lines(
    plan: ShelvedPlan, cost: Costs | None, width: int, *, problem: str = "", ascii_only: bool = False
) -> list[Line]:
    """The plan in words; its stages as one bar in proportion; then each with its diet, length, rows and changes."""
    width = max(20, width - 1)
    if plan.plan is None:
        return [line(("This plan can't be used:", "bad")), *wrapped(plan.problem, width, "bad")]
    lines = [*wrapped(plan.plan.description or "(no description)", width), ()]
    if problem:
        lines += [*wrapped(problem, width, "bad"), line(("R asks again", "muted")), ()]
    asked = cost.get("stages", ()) if cost is not None else ()
    if len(plan.plan.stages) > 1 and total_tokens(cost):
        lines += [_stage_bar([float(stage["tokens"]) for stage in asked], width, ascii_only=ascii_only), ()]
    for index, stage in enumerate(plan.plan.stages):
        told = asked[index] if index < len(asked) else None
        lines += [*_stage(stage, index, len(plan.plan.stages), told, width, ascii_only=ascii_only), ()]
    if cost is None and not problem:
        lines.append(line(("counting what it takes...", "muted")))
    lines += facts(
        [("seed", str(plan.plan.seed)), ("file", line((str(plan.file), "muted")))],
        name_width=_NAME_WIDTH,
        width=width,
    )
    return lines


def _stage_bar(tokens: Sequence[float], width: int, *, ascii_only: bool) -> Line:
    """Each stage as long as its share of the tokens, at least a cell."""
    total = sum(tokens) or 1.0
    spans = []
    for index, count in enumerate(tokens):
        cells = max(1, round(count / total * min(width, 72)))
        mark = str(index + 1) if ascii_only else "█"
        spans.append((mark * cells, series_ink(index)))
    return line(*spans)


def _stage(
    stage: Stage, index: int, count: int, told: Mapping[str, Any] | None, width: int, *, ascii_only: bool
) -> Iterator[Line]:
    number = (f"stage {index + 1} of {count}", "muted") if count > 1 else ("the only stage", "muted")
    yield spread(line((stage.name, f"bold {series_ink(index)}")), line(number), width)
    total = sum(stage.datasets.values())
    names = max(len(name) for name in stage.datasets)
    room = max(6, min(28, width - names - _NAME_WIDTH - 10))
    for place, (name, share) in enumerate(stage.datasets.items()):
        bar = progress_bar(share / total, room, ascii_only=ascii_only)
        title = "diet" if place == 0 else ""
        yield line(
            (f"{title:<{_NAME_WIDTH}}  ", "muted"), f"{name:<{names}}  ", *bar, (f" {share / total:>4.0%}", "muted")
        )
    yield from _fact("budget", line((budget(stage), "bold")), width)
    if told is not None:
        yield from _fact("makes", joined(_length(told), (", ", "muted")), width)
    if told is not None:
        fill = told.get("fill")
        full = f", {fill:.1%} full" if isinstance(fill, int | float) else ""
        rows = f"{told['batch_size']} x {told['sequence_length']} a step, {told.get('packing')}{full}"
        yield from _fact("rows", line(rows), width)
        if told.get("disk"):
            yield from _fact("disk", line(_estimated_bytes(told["disk"], bool(told.get("exact")))), width)
    changes = {key: value for key, value in stage.train.items() if key not in ("sequence_length", "batch_size")}
    words = "  ".join(
        f"{key}={short_number(value) if isinstance(value, float) else value}" for key, value in changes.items()
    )
    for place, content in enumerate(wrapped(words, max(10, width - _NAME_WIDTH - 2)) if words else ()):
        yield line((f"{'changes' if place == 0 else '':<{_NAME_WIDTH}}  ", "muted"), *content)


def _fact(name: str, content: Line, width: int) -> list[Line]:
    return facts([(name, content)], name_width=_NAME_WIDTH, width=width)


def budget(stage: Stage) -> str:
    """As the plan gives it."""
    if stage.epochs is not None:
        return "1 epoch" if stage.epochs == 1 else f"{stage.epochs:g} epochs"
    if stage.tokens is not None:
        return f"{format_count(stage.tokens)} tokens"
    return f"{format_count(stage.samples)} samples"


def _length(told: Mapping[str, Any]) -> list[Line]:
    exact = bool(told.get("exact"))
    parts = [
        (told.get("tokens"), "tokens"),
        (told.get("rows"), "samples"),
        (told.get("steps"), "steps"),
    ]
    return [line(_estimated(value, exact), (f" {word}", "muted")) for value, word in parts if value]


def _estimated_bytes(size: float, exact: bool) -> str:
    return f"{'' if exact else '~'}{format_bytes(size)}"


# ---- datasets --------------------------------------------------------------------------------------------------------


def used_datasets(plan: Plan) -> list[str]:
    return [name for name in plan.datasets if any(name in stage.datasets for stage in plan.stages)]


def source_of(spec: DatasetSpec) -> str:
    """Kind of the source, and what it reads."""
    args = spec.args
    what = (
        args.get("path")
        or args.get("name")
        or args.get("data_files")
        or args.get("data_dir")
        or args.get("entry_point")
    )
    return f"{spec.source}: {what}" if what else str(spec.source)


def dataset_rows(plan: Plan, cost: Costs | None, *, ascii_only: bool = False) -> list[Row]:
    found = {one["name"]: one for one in (cost.get("datasets", ()) if cost is not None else ())}
    rows = []
    for name in used_datasets(plan):
        spec, told = plan.datasets[name], found.get(name)
        prepared = bool(told and told.get("prepared"))
        tokens = told.get("tokens") if told else spec.max_tokens or spec.expected_tokens
        disk = told.get("disk") if told else None
        rows.append(
            Row(
                name,
                (
                    prepared_mark(float(prepared) if told else None, ascii_only=ascii_only),
                    line((name, "bold")),
                    line(_estimated(tokens, prepared)),
                    line((_estimated_bytes(disk, prepared) if disk else "", "muted")),
                    line((source_of(spec), "muted")),
                ),
            )
        )
    return rows


def dataset_lines(
    spec: DatasetSpec, told: Mapping[str, Any] | None, width: int, *, note: str, ascii_only: bool = False
) -> list[Line]:
    """What is read of the source and held out; of a prepared dataset also its documents and how they pack.

    `told` is what `lmplay data show` says; `note` is said in its place while there is nothing.
    """
    width = max(20, width - 1)
    fields = spec.fields.model_dump(exclude_none=True)
    held = spec.validation
    kept_out = f"split {held.split!r}" if held.split else f"{held.share:.2%} of the documents"
    lines: list[Line] = []
    for name, text in (
        ("source", source_of(spec)),
        ("args", "  ".join(f"{key}={value}" for key, value in spec.args.items())),
        ("columns", "  ".join(f"{key}={value}" for key, value in fields.items())),
        ("limit", f"{format_count(spec.max_tokens)} tokens" if spec.max_tokens else ""),
        ("held out", f"{kept_out}, at most {format_count(held.max_tokens)} tokens"),
        ("tokenizer", spec.tokenizer),
    ):
        for place, content in enumerate(wrapped(text, max(10, width - 11)) if text else ()):
            lines.append(line((f"{name if place == 0 else '':<9}  ", "muted"), *content))
    lines.append(())
    if told is None:
        return [*lines, *wrapped(note, width, "muted")]
    learned = f", {told['learned'] / told['tokens']:.0%} learned" if told["learned"] < told["tokens"] else ""
    empty = f", {told['empty']:,} empty rows left out" if told.get("empty") else ""
    lines += facts(
        [
            ("documents", f"{told['documents']:,}, {told['held_out_documents']:,} of them held out{empty}"),
            ("tokens", f"{told['tokens']:,}, {told['held_out_tokens']:,} of them held out{learned}"),
        ],
        name_width=9,
        width=width,
    )
    return [
        *lines,
        (),
        *_packings(told["packings"], width),
        (),
        *_lengths(told["lengths"], width, ascii_only=ascii_only),
    ]


def _lengths(lengths: Mapping[str, Any], width: int, *, ascii_only: bool) -> Iterator[Line]:
    typical = f"median {lengths['median']:,}, mean {lengths['mean']:,.0f}, longest {lengths['longest']:,}"
    yield from rewrapped(line(("tokens of a document: ", "muted"), typical), width)
    most = max((count for _, _, count in lengths["histogram"]), default=1)
    room = max(6, min(40, width - 28))
    for first, last, count in lengths["histogram"]:
        bar = progress_bar(count / most, room, ascii_only=ascii_only, ink="second")
        yield line((f"{first:>9,} - {last - 1:<9,} ", "muted"), *bar, (f" {format_count(count)}", ""))


def _packings(packings: Mapping[str, Mapping[str, Any]], width: int) -> Iterator[Line]:
    heads = [
        ("rows", "rows"),
        ("full", "fill"),
        ("targets", "targets"),
        ("cut", "cut_documents"),
        ("dropped", "dropped_documents"),
    ]
    heads = heads if width >= 60 else heads[:3]
    yield line((f"{'packing':<10}" + "".join(f"{head:>10}" for head, _ in heads), "muted"))
    for mode, told in packings.items():
        values = (f"{told[key]:.2%}" if key == "fill" else format_count(told[key]) for _, key in heads)
        yield line(f"{mode:<10}" + "".join(f"{value:>10}" for value in values))


# ---- the cache, preparations -----------------------------------------------------------------------------------------


def cache_rows(stores: Sequence[Mapping[str, Any]], now: float) -> list[Row]:
    rows = []
    for store in stores:
        used = store.get("last_used")
        ago = f"{format_seconds(max(0.0, now - used))} ago" if isinstance(used, int | float) else ""
        rows.append(
            Row(
                str(store.get("name")),
                (
                    line(str(store.get("name"))),
                    line((format_count(store.get("tokens")), "bold")),
                    line(format_count(store.get("documents"))),
                    line(format_bytes(store.get("disk"))),
                    line((ago, "muted")),
                ),
            )
        )
    return rows


def cache_title(stores: Sequence[Mapping[str, Any]]) -> str:
    return f"{len(stores)}, {format_bytes(sum(int(store.get('disk') or 0) for store in stores))}" if stores else ""


def preparation_lines(now: Sequence[Preparation], width: int, *, ascii_only: bool = False) -> list[Line]:
    """A line each: what is being done, a bar, how much of how much, and how long it still takes."""
    return [content for one in now for content in _preparation(one, max(20, width), ascii_only=ascii_only)]


def _preparation(one: Preparation, width: int, *, ascii_only: bool) -> list[Line]:
    if one.state == "failed":
        return wrapped(f"{one.name}: {one.problem}", width, "bad")[:3]
    if one.state == "stopped":
        return [line((f"{one.name}: stopped; what is prepared so far is kept, p goes on", "warn"))]
    if one.state == "done":
        return [line(("+ " if ascii_only else "✓ ", "good"), f"{one.name} is prepared")]
    if not one.steps:
        return [line((f"{one.name}: starting...", "primary"))]
    return [_step_line(one, one.steps[-1], width, ascii_only=ascii_only)]


def _step_line(one: Preparation, step: Step, width: int, *, ascii_only: bool) -> Line:
    left = step.seconds_left
    amount = format_count(step.done) + (f" of {format_count(step.total)}" if step.total else "")
    name = line((f"{one.name}  ", "bold"), step.what)
    right = line(f"  {amount}", (f"  {format_seconds(left)} left" if left is not None else "", "accent"))
    room = width - sum(len(text) for text, _ in (*name, *right)) - 2
    bar = progress_bar(step.share, min(room, 40), ascii_only=ascii_only, ink="good") if room >= 6 else ()
    return (*name, ("  ", ""), *bar, *right) if bar else spread(name, right, width)
