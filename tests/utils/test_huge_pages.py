"""The environment that has a process's memory laid into huge pages."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from lmplay.utils.huge_pages import with_huge_pages

_SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_TAKES_MEMORY = """
taken = bytearray(b"x") * (64 << 20)
print(next(line.split()[1] for line in open("/proc/self/smaps_rollup") if line.startswith("AnonHugePages")))
"""


def test_the_wish_joins_other_settings_and_gives_way_to_ones_own() -> None:
    assert with_huge_pages({"A": "b"}) == {"A": "b", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    joined = with_huge_pages({"GLIBC_TUNABLES": "glibc.malloc.check=0"})
    assert joined == {"GLIBC_TUNABLES": "glibc.malloc.check=0:glibc.malloc.hugetlb=1"}
    assert with_huge_pages(joined) == joined
    refused = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"}
    assert with_huge_pages(refused) == refused


@pytest.mark.skipif(
    platform.libc_ver() < ("glibc", "2.35") or not _SETTING.exists() or "[madvise]" not in _SETTING.read_text(),
    reason="this system does not let programs ask",
)
def test_a_process_with_that_environment_has_huge_pages() -> None:
    kilobytes = [
        int(subprocess.check_output([sys.executable, "-c", _TAKES_MEMORY], env=environment, text=True))
        for environment in (with_huge_pages({**os.environ, "GLIBC_TUNABLES": ""}), {**os.environ, "GLIBC_TUNABLES": ""})
    ]
    assert kilobytes[0] >= 32 << 10
    assert kilobytes[1] == 0
