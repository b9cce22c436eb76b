"""The datasets that the short form of a plan knows by name, and `lmplay data show` without a plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

WIKITEXT_TITLE = r"^ = [^=].* = $"
"""The row that begins an article of WikiText, whose rows are paragraphs."""

KNOWN_DATASETS: Mapping[str, Mapping[str, Any]] = {
    "pydocs": {
        "source": "builtin",
        "args": {"name": "pydocs"},
        "expected_tokens": 140_000,
        "validation": {"share": 0.2, "max_tokens": 24_576},
    },
    "stdlib": {
        "source": "builtin",
        "args": {"name": "stdlib"},
        "expected_tokens": 5_200_000,
        "validation": {"share": 0.02, "max_tokens": 24_576},
    },
    "wikipedia": {
        "source": "hub",
        "args": {"path": "wikimedia/wikipedia", "name": "20231101.en"},
        "expected_tokens": 4_500_000_000,
        "validation": {"share": 0.0005, "max_tokens": 500_000},
    },
    "wikitext": {
        "source": "hub",
        "args": {"path": "Salesforce/wikitext", "name": "wikitext-103-raw-v1"},
        "document_start": WIKITEXT_TITLE,
        "expected_tokens": 118_000_000,
        "validation": {"split": "validation", "max_tokens": 500_000},
    },
    "tinystories": {
        "source": "hub",
        "args": {"path": "roneneldan/TinyStories"},
        "expected_tokens": 470_000_000,
        "validation": {"split": "validation", "max_tokens": 500_000},
    },
    "fineweb_edu": {
        "source": "hub",
        "args": {"path": "HuggingFaceFW/fineweb-edu", "name": "sample-10BT"},
        "expected_tokens": 10_000_000_000,
        "validation": {"share": 0.0002, "max_tokens": 500_000},
    },
}
