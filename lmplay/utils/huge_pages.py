"""The environment of a process that computes: its memory lies in pages of 2 MiB where the system has them.

A processor keeps the places of a limited number of pages at hand, and reads ahead to a page's end. A model takes
gigabytes, which are half a million pages of 4 KiB. glibc (2.35 and newer) asks Linux for large ones when this variable
says so at the process's start; other C libraries and systems don't know it.
"""

from __future__ import annotations

from collections.abc import Mapping

_VARIABLE, _TUNABLE = "GLIBC_TUNABLES", "glibc.malloc.hugetlb"


def with_huge_pages(environment: Mapping[str, str]) -> dict[str, str]:
    """`environment`, and the wish for large pages unless it has one already (`glibc.malloc.hugetlb=0` is none)."""
    others = environment.get(_VARIABLE, "")
    if _TUNABLE in others:
        return dict(environment)
    return {**environment, _VARIABLE: ":".join(filter(None, (others, f"{_TUNABLE}=1")))}
