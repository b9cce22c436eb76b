"""Names: of models, from their parameters; and the nearest known name to one that was mistyped."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def to_name(version: str, **parameters: object) -> str:
    """The name of a model from its version and the parameters that tell it from its siblings.

    >>> to_name("gpt2ish", num_blocks=6, max_len=1024)
    'gpt2ish_num_blocks6_max_len1024'
    >>> to_name("gpt2ish", rotary=True, bias=False)
    'gpt2ish_rotary'

    Parameters that are `False` or `None` are left out, `True` stands as the bare key.
    """
    parts = [version]
    for key, value in parameters.items():
        if value is True:
            parts.append(key)
        elif value is not None and value is not False:
            parts.append(f"{key}{value}")
    return "_".join(parts)


def nearest(name: str, known: Iterable[str], *, limit: int = 3) -> list[str]:
    """Up to `limit` names of `known` that `name` was probably meant to be, best first; may be empty.

    The last part of a dotted key counts too, so that `lr` finds `train.lr`.
    """
    candidates = sorted(set(known))
    folded = {candidate.casefold(): candidate for candidate in candidates}
    wanted = name.casefold().replace("-", "_")
    found = [folded[match] for match in difflib.get_close_matches(wanted, list(folded), n=limit, cutoff=0.6)]
    last_parts: dict[str, list[str]] = {}
    for candidate in candidates:
        last_parts.setdefault(candidate.casefold().rpartition(".")[2], []).append(candidate)
    for match in difflib.get_close_matches(wanted.rpartition(".")[2], list(last_parts), n=limit, cutoff=0.75):
        found.extend(candidate for candidate in last_parts[match] if candidate not in found)
    return found[:limit]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of an error message: `; did you mean a or b?`, or nothing where no known name is near."""
    found = nearest(name, known)
    return f"; did you mean {' or '.join(found)}?" if found else ""
