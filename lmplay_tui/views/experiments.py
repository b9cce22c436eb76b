"""What the experiments screen says about one experiment: lines and rows from the answers of `describe` and `check`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lmplay.utils.figures import format_bytes, format_count
from lmplay_tui.columns import Column
from lmplay_tui.figures import progress_bar
from lmplay_tui.lines import Line, facts, line, wrapped
from lmplay_tui.services.experiments import Experiment
from lmplay_tui.widgets.grid import Row

CHECKS = (
    "gradients",
    "causality",
    "cache",
    "initial_loss",
    "batch_independence",
    "learns",
    "determinism",
    "eval_mode",
    "precision",
    "compile",
    "cost",
)

LIST_COLUMNS = (
    Column(key="name", title="name", flex=2, least=22, most=32),
    Column(key="parameters", title="params", align="right", rank=1, least=7),
    Column(key="family", title="family", rank=2, most=24),
    Column(key="description", title="description", flex=1, rank=3, least=24, most=120),
)
LAYER_COLUMNS = (
    Column(key="layer", title="layer", flex=1, least=18, most=60),
    Column(key="output", title="output", rank=2, most=18),
    Column(key="parameters", title="parameters", align="right", most=14),
    Column(key="share", title="share", rank=1, most=12),
    Column(key="flops", title="FLOP/token", align="right", rank=3, most=10),
)
CHECK_COLUMNS = (
    Column(key="mark", title="", least=4, most=4),
    Column(key="name", title="check", least=18, most=18),
    Column(key="evidence", title="evidence", flex=1, least=10, most=300),
)
GRADIENT_COLUMNS = (
    Column(key="name", title="parameter", flex=1, least=16, most=60),
    Column(key="shape", title="shape", rank=2, most=14),
    Column(key="status", title="gradient", most=14),
    Column(key="norm", title="norm", align="right", most=9),
    Column(key="ratio", title="/ weights", align="right", rank=1, most=9),
    Column(key="bar", title="", rank=3, most=14),
)


def list_rows(
    experiments: Sequence[Experiment], words: str, parameters: Mapping[str, int], *, ascii_only: bool = False
) -> list[Row]:
    """The list: those that hold all words, the broken ones last, each with its error."""
    wanted = words.casefold().split()
    found = []
    for one in experiments:
        text = f"{one.name} {one.family} {one.description} {one.long_name}".casefold()
        if all(word in text for word in wanted):
            found.append(one)
    rows = [
        Row(
            one.name,
            (
                line((one.name, "bold")),
                line((format_count(parameters.get(one.name)) if one.name in parameters else "", "muted")),
                line((one.family, "muted")),
                line(one.description),
            ),
        )
        for one in found
        if one.broken is None
    ]
    sign = "!" if ascii_only else "✗"
    rows += [
        Row(
            f"broken:{one.name}",
            (line((f"{sign} {one.name}", "bad")), (), line((one.family, "muted")), line((one.broken, "bad"))),
        )
        for one in found
        if one.broken is not None
    ]
    return rows


_NAMES = 10
"""Cells of the names of facts."""


def overview(
    one: Experiment,
    told: Mapping[str, Any] | None,
    width: int,
    *,
    rows: int,
    problem: str = "",
    ascii_only: bool = False,
) -> list[Line]:
    """Description, settings, parameters by part, FLOPs, and the memory of a mini-batch."""
    width = max(20, width - 1)
    head = [*wrapped(one.description or "(no description)", width), ()]
    if one.broken is not None:
        return [*head, line(("It can't be imported:", "bad")), *wrapped(one.broken, width, "bad"), ()]
    if problem:
        return [*head, *wrapped(problem, width, "bad")]
    if told is None:
        return [*head, line(("building it without weights, to count...", "muted"))]
    settings = ", ".join(f"{key}={value}" for key, value in told.get("settings", {}).items() if key != "version")
    return [
        *head,
        *facts(
            [
                ("class", _class_named(str(told.get("model_class", "")))),
                ("causal", "" if told.get("causal", True) else line(("no: it may look ahead", "warn"))),
                ("settings", settings),
            ],
            name_width=_NAMES,
            width=width,
        ),
        (),
        *facts(_parameter_facts(told), name_width=_NAMES, width=width),
        (),
        *_part_bars(told.get("parameters_by_part", {}), width, ascii_only=ascii_only),
        (),
        *_memory_lines(told.get("memory", {}), width, rows=rows, ascii_only=ascii_only),
    ]


def _class_named(path: str) -> Line:
    """The name first: of a long path it is what tells models apart."""
    module, _, name = path.rpartition(".")
    return line(name, (f" in {module}", "muted") if module else "")


def _parameter_facts(told: Mapping[str, Any]) -> list[tuple[str, str | Line]]:
    total, trainable = int(told.get("parameters", 0)), int(told.get("trainable_parameters", 0))
    without = told.get("non_embedding_parameters")
    found: list[tuple[str, str | Line]] = [
        ("parameters", line((f"{total:,}", "bold"), (f", {format_count(without)} non-embedding", "muted")))
    ]
    if trainable != total:
        found.append(("trainable", line(f"{trainable:,}", (f", {total - trainable:,} frozen", "warn"))))
    forward, training = told.get("flops_per_token"), told.get("training_flops_per_token")
    found.append(
        (
            "FLOP/token",
            line(format_count(forward), (" forward, ", "muted"), format_count(training), (" training", "muted")),
        )
    )
    return found


def _part_bars(parts: Mapping[str, Any], width: int, *, ascii_only: bool) -> Iterator[Line]:
    total = sum(parts.values()) or 1
    names = max((len(name) for name in parts), default=0)
    room = max(8, min(32, width - names - 18))
    for name, count in parts.items():
        bar = progress_bar(count / total, room, ascii_only=ascii_only)
        yield line((f"{name:<{names}}  ", ""), *bar, (f" {format_count(count):>7} {count / total:>5.1%}", "muted"))


def _memory_lines(memory: Mapping[str, Any], width: int, *, rows: int, ascii_only: bool) -> Iterator[Line]:
    if not memory:
        return
    if memory.get("mini_batch_size") != rows:
        yield from facts(
            [("memory", line((f"estimating it for {rows} rows at once...", "primary")))], name_width=_NAMES
        )
        return
    total = float(memory.get("total") or 1)
    at_once = f" for {rows} row{'s' if rows != 1 else ''} of {memory.get('sequence_length')} tokens at once"
    yield from facts(
        [("memory", line((format_bytes(total), "bold"), (at_once, "muted")))], name_width=_NAMES, width=width
    )
    room = max(8, min(32, width - 30))
    for name in ("weights", "gradients", "optimizer", "activations"):
        size = float(memory.get(name) or 0)
        bar = progress_bar(size / total, room, ascii_only=ascii_only, ink="second")
        yield line((f"{name:<12}", ""), *bar, (f" {format_bytes(size):>10}", "muted"))


# ---- layers ----------------------------------------------------------------------------------------------------------


def layer_rows(
    layers: Sequence[Mapping[str, Any]], *, depth: int, by_size: bool = False, ascii_only: bool = False
) -> list[Row]:
    """Layers down to `depth`; alike neighbours stand once, with their number. `by_size` lists them by parameters."""
    total = max((layer["parameters"] for layer in layers), default=0) or 1
    nodes = [
        (index, layer, times) for index, layer, times in _merged(layers, 0, len(layers)) if layer["depth"] <= depth
    ]
    if by_size:
        nodes = [node for node in nodes if node[1]["depth"] == depth or not _has_below(layers, node[0])]
        nodes.sort(key=lambda node: -node[1]["parameters"] * node[2])
    rows = []
    for index, layer, times in nodes:
        name = str(layer["name"]) if by_size else str(layer["name"]).rpartition(".")[2]
        label = line(
            ("" if by_size else "  " * layer["depth"]),
            (name or layer["type"], "bold" if layer["depth"] == 0 else ""),
            (f" {layer['type']}" if name else "", "muted"),
            (f" x {times}" if times > 1 else "", "accent"),
        )
        count = layer["parameters"] * times
        rows.append(
            Row(
                f"{index}",
                (
                    label,
                    line(("x".join(map(str, layer.get("output_size") or ())), "muted")),
                    line(f"{count:,}" if count else ""),
                    progress_bar(count / total, 10, ascii_only=ascii_only) if count else (),
                    line((format_count(layer["flops_per_token"] * times) if layer["flops_per_token"] else "", "muted")),
                ),
            )
        )
    return rows


def _merged(layers: Sequence[Mapping[str, Any]], start: int, end: int) -> Iterator[tuple[int, Mapping[str, Any], int]]:
    """(place, layer, how many alike) of the layers in [start, end), each followed by what is below it."""
    place = start
    while place < end:
        after = _end_of(layers, place)
        shape = _shape(layers, place, after)
        times, next_place = 1, after
        while next_place < end and _shape(layers, next_place, _end_of(layers, next_place)) == shape:
            times, next_place = times + 1, _end_of(layers, next_place)
        yield place, layers[place], times
        yield from _merged(layers, place + 1, after)
        place = next_place


def _end_of(layers: Sequence[Mapping[str, Any]], place: int) -> int:
    end = place + 1
    while end < len(layers) and layers[end]["depth"] > layers[place]["depth"]:
        end += 1
    return end


def _shape(layers: Sequence[Mapping[str, Any]], start: int, end: int) -> list[tuple[Any, ...]]:
    return [(one["type"], one["depth"], one["parameters"], one["flops_per_token"]) for one in layers[start:end]]


def _has_below(layers: Sequence[Mapping[str, Any]], place: int) -> bool:
    return _end_of(layers, place) > place + 1


# ---- checks ----------------------------------------------------------------------------------------------------------


_NARROW = 64
"""Cells below which the evidence of a check stands under its name, not beside it."""


def check_rows(
    results: Mapping[str, Mapping[str, Any]], running: str | None, width: int, *, ascii_only: bool = False
) -> list[Row]:
    """A line a check, in their order; a failed one with its likely cause below. `running` is the one at work."""
    rows = []
    narrow = width < _NARROW
    room = max(20, width - (7 if narrow else 28))
    for name in dict.fromkeys((*CHECKS, *results)):
        result = results.get(name)
        mark, evidence = _verdict(result, name == running, ascii_only=ascii_only)
        named = line((name, "" if result is not None or name == running else "muted"))
        told = wrapped(evidence, room, "muted" if result is None or result.get("skipped") or narrow else "")
        if result is not None and result.get("cause"):
            cause = ("" if result.get("skipped") else "likely: ") + str(result["cause"])
            told += wrapped(cause, room, "muted" if result.get("skipped") else "bad")
        beside = () if narrow and result is not None else told[0]
        rows.append(Row(name, (mark, named, beside)))
        for index, part in enumerate(told[0 if narrow and result is not None else 1 :]):
            key = f"{name}:{index}"
            rows.append(Row(key, (line(" " * 6, *part),), heading=True) if narrow else Row(key, ((), (), part)))
    return rows


def _verdict(result: Mapping[str, Any] | None, running: bool, *, ascii_only: bool) -> tuple[Line, str]:
    if result is None:
        return (line(("..", "primary")), "asking...") if running else (line(("-" if ascii_only else "·", "faint")), "")
    evidence = str(result.get("evidence", ""))
    if result.get("skipped"):
        return line(("skip", "muted")), evidence
    if result.get("ok"):
        return line(("ok", "good")), evidence
    return line(("FAIL", "bold bad")), evidence


def verdict_note(results: Mapping[str, Mapping[str, Any]], running: bool) -> tuple[str, str]:
    """(text, ink) beside the title of the checks: how many passed, whether any failed."""
    failed = sum(not result.get("ok") for result in results.values())
    if failed:
        return f"{failed} failed", "bad"
    if not results:
        return ("asking", "primary") if running else ("", "muted")
    return f"{len(results)}/{len(CHECKS)}", "good" if len(results) >= len(CHECKS) else "primary"


def gradient_rows(gradients: Sequence[Mapping[str, Any]], *, ascii_only: bool = False) -> list[Row]:
    """Norms by block as bars, then a line a parameter with its status. The scale of the bars is logarithmic."""
    norms = _norms_by_block(gradients)
    top = max((norm for norm in norms.values() if math.isfinite(norm)), default=0.0)
    rows = [Row("head:blocks", (line(("by block, logarithmic over four decades", "muted")),), heading=True)]
    for name, norm in norms.items():
        bar = _log_bar(norm, top, 24, ascii_only=ascii_only)
        text = line((f"{name:<16}", ""), *bar, (f" {norm:.2e}", "muted"))
        rows.append(Row(f"block:{name}", (text,), heading=True))
    rows.append(Row("head:parameters", ((),), heading=True))
    inks = {"ok": "good", "frozen": "muted", "none": "warn", "zero": "warn", "tiny": "warn"}
    for one in gradients:
        status = str(one.get("status", ""))
        size, ratio = one.get("grad_norm"), one.get("ratio")
        rows.append(
            Row(
                str(one.get("name")),
                (
                    line(str(one.get("name"))),
                    line(("x".join(map(str, one.get("shape") or ())), "muted")),
                    line((f"{status}, frozen" if one.get("frozen") else status, inks.get(status, "bad"))),
                    line(_scientific(size)),
                    line((_scientific(ratio), "muted")),
                    _log_bar(float(size), top, 12, ascii_only=ascii_only) if isinstance(size, int | float) else (),
                ),
            )
        )
    return rows


def _norms_by_block(gradients: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Norm of the gradient of each numbered block, and of each part of the model that has none."""
    squares: dict[str, float] = {}
    for one in gradients:
        norm = one.get("grad_norm")
        if not isinstance(norm, int | float):
            continue
        parts = str(one.get("name", "")).split(".")
        numbered = next((place for place, part in enumerate(parts) if part.isdecimal()), None)
        name = ".".join(parts[: numbered + 1]) if numbered is not None else parts[0]
        squares[name] = squares.get(name, 0.0) + float(norm) ** 2
    return {name: math.sqrt(square) for name, square in squares.items()}


def _log_bar(norm: float, top: float, width: int, *, ascii_only: bool) -> Line:
    share = 1 + math.log10(norm / top) / 4 if norm > 0 and top > 0 and math.isfinite(norm) else 0.0
    return progress_bar(max(0.0, share), width, ascii_only=ascii_only, ink="good" if share > 0.25 else "warn")


def _scientific(value: object) -> str:
    """Numbers as `1.23e-04`; what is not finite comes as a word."""
    return f"{value:.2e}" if isinstance(value, int | float) else str(value or "")
