"""`lmplay doctor`: what this machine is, whether lmplay works on it, and how to mend what does not."""

from __future__ import annotations

import typer

from lmplay.utils.files import to_json


def register(app: typer.Typer) -> None:
    app.command("doctor")(doctor_command)


def doctor_command(
    json: bool = typer.Option(False, "--json", help="Print one object: ok, and the findings with their verdicts."),
) -> None:
    """Look at this machine: versions, processor, devices, disk, tokenizer, experiments; each with a verdict and a mend.

    `note` is what works and could be better. Exit status 1 when something stands in the way.
    """
    from lmplay.cli.examinations import Finding, examine

    findings: list[Finding] = []
    if json:
        findings.extend(examine())
        well = all(finding.verdict != "fail" for finding in findings)
        typer.echo(to_json({"ok": well, "findings": [finding.to_dict() for finding in findings]}, indent=2))
        raise typer.Exit(0 if well else 1)

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console, styles = Console(), {"ok": "green", "note": "yellow", "fail": "bold red"}
    for finding in examine():
        findings.append(finding)
        grid = Table.grid(padding=(0, 2, 0, 0))
        for width in (4, 11):
            grid.add_column(width=width)
        grid.add_column(ratio=1, overflow="fold")
        verdict = "FAIL" if finding.verdict == "fail" else finding.verdict
        grid.add_row(Text(verdict, styles[finding.verdict]), finding.name, Text(finding.seen))
        if finding.mend:
            grid.add_row("", "", Text(finding.mend, "dim" if finding.verdict == "ok" else ""))
        console.print(grid)
    failed = [finding.name for finding in findings if finding.verdict == "fail"]
    noted = [finding.name for finding in findings if finding.verdict == "note"]
    if failed:
        console.print(f"[bold red]stands in the way: {', '.join(failed)}[/]", highlight=False)
    else:
        said = f"lmplay works here; could be better: {', '.join(noted)}" if noted else "lmplay works here"
        console.print(f"[green]{said}[/]", highlight=False)
    raise typer.Exit(1 if failed else 0)
