"""The `lmplay` command: one Typer app, each group of commands in a file of its own."""

from __future__ import annotations


def main() -> None:
    raise SystemExit(2)
