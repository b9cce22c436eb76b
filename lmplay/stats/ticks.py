"""Round numbers for the axes of charts, and short words for them."""

from __future__ import annotations

import math


def ticks(low: float, high: float, count: int, *, log: bool = False) -> list[float]:
    """About `count` round numbers within [low, high], ascending; 1, 2 or 5 times a power of ten.

    With `log`, powers of ten (with 2 and 5 times them when there are few), or round numbers when the range is short.
    """
    if not (math.isfinite(low) and math.isfinite(high)) or low > high or count < 1:
        return []
    if low == high:
        return [low]
    if log and low > 0:
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        for factors in ((1,), (1, 2, 5)):
            found = [f * 10.0**e for e in range(first, last + 1) for f in factors if low <= f * 10.0**e <= high]
            if len(found) >= min(count, 3):
                thin = max(1, math.ceil(len(found) / count))
                return found[::thin]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_TIME_STEPS = (
    *(1, 2, 5, 10, 15, 30),
    *(_MINUTE * count for count in (1, 2, 5, 10, 15, 30)),
    *(_HOUR * count for count in (1, 2, 3, 6, 12)),
    _DAY,
)


def time_ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` seconds within [low, high] that are round as times are read: 15 s, 2 min, 6 h, 1 d."""
    if not (math.isfinite(low) and math.isfinite(high)) or low >= high or count < 1:
        return ticks(low, high, count)
    rough = (high - low) / count
    if rough <= _TIME_STEPS[0]:
        return ticks(low, high, count)
    if rough > _DAY:
        return [_DAY * days for days in ticks(low / _DAY, high / _DAY, count)]
    step = next(size for size in _TIME_STEPS if size >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(number * step) for number in range(first, last + 1)]


def time_label(seconds: float) -> str:
    """`0`, `1.5s`, `45s`, `2m30s`, `1h`, `1h30m`, `2d12h`."""
    size = abs(seconds)
    if size < _MINUTE:
        return f"{seconds:.3g}s" if seconds else "0"
    sign = "-" if seconds < 0 else ""
    for unit, letter, below, small in ((_DAY, "d", _HOUR, "h"), (_HOUR, "h", _MINUTE, "m"), (_MINUTE, "m", 1, "s")):
        if size >= unit:
            whole, rest = divmod(round(size / below), unit // below)
            return f"{sign}{whole:.0f}{letter}" + (f"{rest:.0f}{small}" if rest else "")
    raise AssertionError(seconds)


def tick_label(value: float) -> str:
    """`0`, `0.25`, `1.5k`, `250k`, `1M`, `3e12`: short, and different ticks never read the same for round numbers."""
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1e12 or size < 1e-3:
        return f"{value:.3g}".replace("e+", "e")
    for limit, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if size >= limit:
            return f"{value / limit:.4g}{unit}"
    return f"{value:.4g}"
